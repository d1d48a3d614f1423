"""Turns single image files into portraits, by the preprocessing stages."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.runner.spec import Item, StageSpec, Worker
from pipeline.sources.keys import key_of
from pipeline.sources.reader import contents
from stages.apply.portrait import PIXELS, Portrait, assemble, one
from stages.preprocess import aladin_codes, align, latents, masks


class PortraitReader:
    """Turns image files into portraits. Each stage's networks are loaded when the first image needs them."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.steps = {
            name: (
                align.spec(ctx, name),
                masks.parse_spec(ctx),
                masks.spec(ctx),
                latents.spec(ctx, name),
                aladin_codes.spec(ctx),
            )
            for name in COLLECTIONS
        }
        self.workers: dict[str, Worker] = {}

    def __call__(self, path: Path, collection: str) -> Portrait:
        """Read one image. Raises: UserError when it cannot be used; it says why."""
        try:
            data = contents(str(path))
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})", 2) from e
        key = key_of(path.name)
        values: dict[str, Any] = {"source": data}
        for step in self.steps[collection]:
            row = one(self._worker(step), Item(key, values, path.name))
            values |= {f"{step.output}.{n}": v for n, v in row.items()}
        row = {name: values[f"{file}.{name}"] for file, columns in PIXELS.items() for name in columns}
        row |= {name: np.asarray(value) for name, value in row.items() if name != "image"}
        return assemble(key, row, self.ctx.profile.align.size)

    def _worker(self, step: StageSpec) -> Worker:
        """The step's worker. Collections with the same recipe share it."""
        recipe = json.dumps(step.recipe(), sort_keys=True)
        if recipe not in self.workers:
            self.workers[recipe] = step.open(self.ctx)
        return self.workers[recipe]
