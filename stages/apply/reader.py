"""Reads single images of the user as portraits, by the preprocessing stages."""

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
    """Turns picture files into portraits, loading each stage's networks when the first picture needs them."""

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
        """Read one picture. Raises: UserError telling why it cannot be used."""
        try:
            data = contents(str(path))
        except OSError as e:
            raise UserError(f"{path}: {e.strerror}", 2) from e
        key = key_of(path.name)  # decides, among other things, where style windows are drawn
        known: dict[str, Any] = {"source": data}
        for step in self.steps[collection]:
            row = one(self._worker(step), Item(key, known, path.name))
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
