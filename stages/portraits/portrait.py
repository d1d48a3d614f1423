"""A portrait with all that stylisation needs: image, region map, latent and codes.

It is read from the caches or computed from one image file. A single image goes through the same workers as in the
preprocessing stages, so both ways give the same numbers.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pipeline import hashing, images, locks
from pipeline.caches import reader
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.spec import Item, Reject, Worker
from pipeline.shards import index, writer
from pipeline.shards.sample import Decoded
from stages.preprocess import compatibility
from stages.preprocess.producers import PRODUCERS

PIXELS = {"images": ("image",), "masks": ("region",), "latents": ("latent",), "aladin": ("code", "valid", "image_code")}


@dataclass(frozen=True)
class Origin:
    """The file that a portrait was read from, by name and sha256, and the face and the rule that were asked for."""

    name: str
    sha256: str
    face: int | None = None
    no_face: str | None = None


class Target(NamedTuple):
    """What a picture is to have of its styles: codes [4, 256] and a palette [4, 4], of hair, face, background and all.

    A row of a palette is mean red, green and blue in [-1, 1], and the contrast. None: no image of the style is known.
    """

    codes: np.ndarray
    palette: np.ndarray | None


@dataclass(frozen=True)
class Portrait:
    """An aligned image u8 [256, 256, 3] with region u8 [256, 256], latent [num_ws, 512], codes [4, 256], valid [3].

    An edited one knows its `edits`, steps by direction, and its `base`, the portrait as it was. Its image is the
    generator's of the edited latent, its codes are those of the base.
    """

    key: str
    image: np.ndarray
    region: np.ndarray
    latent: np.ndarray
    codes: np.ndarray
    valid: np.ndarray
    origin: Origin | None = None
    base: "Portrait | None" = None
    edits: tuple[tuple[str, float], ...] = ()
    colours: np.ndarray | None = None  # the palette, where it is not that of the image

    @property
    def target(self) -> Target:
        """What a picture in this style is to have of it."""
        return Target(self.codes, self.palette)

    @cached_property
    def palette(self) -> np.ndarray | None:
        """The image's palette f32 [4, 4]. That of a region without a code is the whole image's."""
        if self.colours is not None or not self.image.size:
            return self.colours
        pixels = self.image.astype(np.float32) / 127.5 - 1
        everything = pixels.reshape(-1, 3)
        places = np.arange(len(pixels)) * len(self.region) // len(pixels)  # a map may have another size
        region = self.region[np.ix_(places, places)]
        inside = [pixels[(region == label) & valid] for label, valid in enumerate(self.valid)]
        rows = [*(row if len(row) else everything for row in inside), everything]
        return np.array([[*row.mean(0), np.sqrt(row.var(0).mean())] for row in rows], np.float32)


def identity(portrait: Portrait) -> bytes:
    """A digest of what a portrait holds: portraits of the same one look the same in every style."""
    parts = [portrait.image, portrait.region, portrait.latent, portrait.codes]
    parts += [] if portrait.colours is None else [portrait.colours]
    of_base = [identity(portrait.base)] if portrait.base else []
    return hashing.digest(*(np.ascontiguousarray(part).tobytes() for part in parts), *of_base)


def assemble(key: str, row: Mapping[str, Any], size: int) -> Portrait:
    """Join the rows of the four caches."""
    image = images.decode(bytes(row["image"]), size)
    return Portrait(key, image, row["region"], row["latent"], codes_of(row), row["valid"])


def codes_of(row: Mapping[str, Any]) -> np.ndarray:
    """The codes [4, 256] in a row of aladin.h5. That of a missing region is the whole image's."""
    codes = np.concatenate([row["code"], row["image_code"][None]])
    codes[:3][~row["valid"]] = row["image_code"]
    return codes


def in_region(target: Portrait, region: int, other: Portrait) -> Portrait:
    """`target` with the region's code and palette of `other`, or with its whole image's where it lacks the region."""
    codes, colours = target.codes.copy(), target.palette
    codes[region] = other.codes[region]
    if colours is not None and other.palette is not None:
        colours = colours.copy()
        colours[region] = other.palette[region]
    return dataclasses.replace(target, codes=codes, colours=colours)


def held_out(ctx: Context, keys: Sequence[str]) -> list[str]:
    """Those of `keys` that training never sees, in a random order that follows from the profile's seed.

    They are the test split of the profile, and of the shards where these were packed with a smaller one.
    """
    fraction = ctx.profile.shards.test_fraction
    with contextlib.suppress(UserError):
        fraction = min(fraction, float(index.read_index(ctx.shards)[0]["params"]["test_fraction"]))
    return shuffled(ctx, (key for key in keys if writer.split_of(key, fraction) == "test"))


def shuffled(ctx: Context, keys: Iterable[str]) -> list[str]:
    """The keys in a random order that follows from the profile's seed and does not depend on which others there are."""
    seed = str(ctx.profile.seed).encode()
    return sorted(keys, key=lambda key: hashing.digest(b"evaluation", seed, key.encode()))


def cached(
    ctx: Context,
    collection: str,
    limit: int | None = None,
    choose: Callable[[Context, Sequence[str]], Sequence[str]] = lambda ctx, keys: keys,
) -> Iterator[Portrait]:
    """The portraits of a collection that every cache holds: the first `limit` of those that `choose` takes of all keys.

    Raises: UserError when a cache is missing (2), or was made with another encoder or generator.
    """
    files = {name: ctx.file(collection, name) for name in PIXELS}
    for name, path in files.items():
        if not path.exists():
            raise UserError(f"{path}: is missing; run `hypernst {PRODUCERS[name]}` first", 2)
    with locks.reading(ctx.cache):
        compatibility.one_encoder(ctx)
        with reader.Cache(files["latents"]) as cache:
            compatibility.refuse_others(ctx, cache.provenance, files["latents"])
        shared = sorted(set.intersection(*(set(reader.keys(path)) for path in files.values())))
        for key in choose(ctx, shared)[:limit]:
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
