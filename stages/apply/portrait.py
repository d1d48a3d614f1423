"""A portrait with all that stylisation needs: image, region map, latent and codes.

It is read from the caches or computed from one image file. A single image goes through the same workers as in the
preprocessing stages, so both ways give the same numbers.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import images
from pipeline.caches import reader
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.spec import Item, Reject, Worker
from pipeline.shards.sample import Decoded
from stages.preprocess import compatibility
from stages.preprocess.producers import PRODUCERS

PIXELS = {"images": ("image",), "masks": ("region",), "latents": ("latent",), "aladin": ("code", "valid", "image_code")}


@dataclass(frozen=True)
class Portrait:
    """An aligned image u8 [256, 256, 3] with region u8 [256, 256], latent [num_ws, 512], codes [4, 256], valid [3]."""

    key: str
    image: np.ndarray
    region: np.ndarray
    latent: np.ndarray
    codes: np.ndarray
    valid: np.ndarray


def assemble(key: str, row: Mapping[str, Any], size: int) -> Portrait:
    """Join the rows of the four caches. The code of a missing region is the whole image's."""
    codes = np.concatenate([row["code"], row["image_code"][None]])
    codes[:3][~row["valid"]] = row["image_code"]
    return Portrait(key, images.decode(bytes(row["image"]), size), row["region"], row["latent"], codes, row["valid"])


def in_region(target: Portrait, region: int, other: Portrait) -> Portrait:
    """`target` with the region's code of `other`, or with its whole-image code where `other` lacks the region."""
    codes = target.codes.copy()
    codes[region] = other.codes[region]
    return dataclasses.replace(target, codes=codes)


def cached(ctx: Context, collection: str, limit: int | None = None) -> Iterator[Portrait]:
    """The portraits of a collection that every cache holds, in order of key.

    Raises: UserError when a cache is missing (2), or was made with another encoder or generator.
    """
    files = {name: ctx.file(collection, name) for name in PIXELS}
    for name, path in files.items():
        if not path.exists():
            raise UserError(f"{path}: is missing; run `hypernst {PRODUCERS[name]}` first", 2)
    compatibility.one_encoder(ctx)
    with reader.Cache(files["latents"]) as cache:
        compatibility.refuse_others(ctx, cache.provenance, files["latents"])
    shared = sorted(set.intersection(*(set(reader.keys(path)) for path in files.values())))
    for key in shared[:limit]:
        row: dict[str, Any] = {}
        for name, columns in PIXELS.items():
            row |= reader.read_rows(files[name], [key], columns)[0]
        yield assemble(key, row, ctx.profile.align.size)


def one(worker: Worker, item: Item) -> Mapping[str, Any]:
    """The row that the worker makes of one item. Raises: UserError when it rejects the item."""
    row = worker([item])[0]
    if isinstance(row, Reject):
        raise UserError(f"{item.path}: {row.reason}")
    return row


def from_sample(sample: Decoded) -> Portrait:
    """A shard's sample as a portrait; every region has a code."""
    valid = np.ones(3, bool)
    return Portrait(sample["key"], sample["image"], sample["region"], sample["latent"], sample["codes"], valid)
