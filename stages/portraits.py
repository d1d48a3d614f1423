"""A portrait with all that stylisation needs to know of it, read from the caches or computed from one picture file.

A single picture goes through the very workers of the preprocessing stages, so both ways give the same numbers.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import hypernetwork
from pipeline import pictures, store
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import Fault
from pipeline.plan import WRITERS
from pipeline.runner import Item, Reject, StageSpec, Worker
from pipeline.sources import contents, key_of
from stages import aladin_codes, align, latents, masks, networks

PIXELS = {"images": ("image",), "masks": ("region",), "latents": ("latent",), "aladin": ("code", "valid", "image_code")}


@dataclass(frozen=True)
class Portrait:
    """An aligned picture: image u8 [256, 256, 3], region u8 [256, 256], latent [S, 512], codes [4, 256], valid [3]."""

    key: str
    image: np.ndarray
    region: np.ndarray
    latent: np.ndarray
    codes: np.ndarray
    valid: np.ndarray


def assemble(key: str, row: Mapping[str, Any], size: int) -> Portrait:
    """Join the rows of the four caches; a missing region's code is the whole image's."""
    codes = np.concatenate([row["code"], row["image_code"][None]])
    codes[:3][~row["valid"]] = row["image_code"]
    return Portrait(key, pictures.decode(bytes(row["image"]), size), row["region"], row["latent"], codes, row["valid"])


def in_region(target: Portrait, region: int, other: Portrait) -> Portrait:
    """`target` with the region's code of `other` (its whole-image code where it lacks the region)."""
    codes = target.codes.copy()
    codes[region] = other.codes[region]
    return dataclasses.replace(target, codes=codes)


def cached(ctx: Context, collection: str, limit: int | None = None) -> Iterator[Portrait]:
    """Portraits of a collection that every cache holds, in order of key."""
    files = {name: ctx.file(collection, name) for name in PIXELS}
    for name, path in files.items():
        if not path.exists():
            raise Fault(f"{path}: missing; run `hypernst {WRITERS[name]}` first", 2)
    aladin_codes.one_encoder(ctx)
    with store.Cache(files["latents"]) as cache:
        latents.refuse_others(ctx, cache.provenance, files["latents"])
    shared = sorted(set.intersection(*(set(store.keys(path)) for path in files.values())))
    for key in shared[:limit]:
        row: dict[str, Any] = {}
        for name, columns in PIXELS.items():
            row |= store.read_rows(files[name], [key], columns)[0]
        yield assemble(key, row, ctx.profile.align.size)


class Reader:
    """Turns picture files into portraits, loading each stage's networks when the first picture needs them."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.steps = {name: (align.spec(ctx, name), masks.parse_spec(ctx), masks.spec(ctx), latents.spec(ctx, name),
                             aladin_codes.spec(ctx)) for name in COLLECTIONS}
        self.workers: dict[str, Worker] = {}

    def __call__(self, path: Path, collection: str) -> Portrait:
        """Read one picture. Raises: Fault telling why it cannot be used."""
        try:
            data = contents(str(path))
        except OSError as e:
            raise Fault(f"{path}: {e.strerror}", 2) from e
        key = key_of(path.name)  # decides, among other things, where style windows are drawn
        known: dict[str, Any] = {"source": data}
        for step in self.steps[collection]:
            row = _one(self._worker(step), Item(key, known, path.name))
            known |= {f"{step.output}.{n}": v for n, v in row.items()}
        row = {name: known[f"{file}.{name}"] for file, columns in PIXELS.items() for name in columns}
        row |= {name: np.asarray(value) for name, value in row.items() if name != "image"}
        return assemble(key, row, self.ctx.profile.align.size)

    def _worker(self, step: StageSpec) -> Worker:
        """The step's worker; collections with the same recipe share it."""
        recipe = json.dumps(step.recipe(), sort_keys=True)
        if recipe not in self.workers:
            self.workers[recipe] = step.open(self.ctx)
        return self.workers[recipe]


def _one(worker: Worker, item: Item) -> Mapping[str, Any]:
    answer = worker([item])[0]
    if isinstance(answer, Reject):
        raise Fault(f"{item.path}: {answer.reason}")
    return answer


class Stylist:
    """The trained network: renders a portrait with any codes."""

    def __init__(self, ctx: Context) -> None:
        self.generator = networks.generator(ctx)
        self.hyper = networks.trained_hypernetwork(ctx, self.generator.layer_table())
        self.device, self.refinements = ctx.device, ctx.profile.train.refinements

    def render(self, content: Portrait, codes: np.ndarray) -> np.ndarray:
        """y(c, s): the content rendered with codes [4, 256], RGB u8 [256, 256, 3] (Eq. 2)."""
        y = hypernetwork.render(self.hyper, self.generator, pictures.to_tensor(content.image).to(self.device),
                                self._tensor(content.latent), self._tensor(codes),
                                torch.from_numpy(content.region)[None].to(self.device), self.refinements)
        return pictures.to_arrays(y)[0]

    def stylise(self, content: Portrait, style: Portrait, strength: float = 1.0) -> np.ndarray:
        """The content in the style's codes, walked `strength` of the way from its own."""
        return self.render(content, self.codes(content, style, strength))

    def codes(self, content: Portrait, style: Portrait, strength: float) -> np.ndarray:
        """The codes [4, 256] on the walk from the content's own to the style's."""
        return hypernetwork.mix_codes(torch.from_numpy(content.codes), torch.from_numpy(style.codes), strength).numpy()

    def invert(self, content: Portrait) -> np.ndarray:
        """What the frozen generator makes of the content's latent."""
        with torch.no_grad():
            return pictures.to_arrays(self.generator(self._tensor(content.latent)))[0]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32))[None].to(self.device)
