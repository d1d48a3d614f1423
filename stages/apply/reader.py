"""Turns single image files into portraits, by the preprocessing stages."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.runner.spec import Item, StageSpec, Worker
from pipeline.sources.keys import key_of
from pipeline.sources.reader import contents
from stages.apply.portrait import PIXELS, Portrait, assemble, one
from stages.preprocess import aladin_codes, align, latents, masks


class PortraitReader:
    """Turns image files into portraits. Each stage's networks are loaded when the first image needs them.

    `which` is the face to take of several ones in a content image, counted from the left and from 1; None: the largest.
    """

    def __init__(self, ctx: Context, which: int | None = None) -> None:
        self.ctx, self.which = ctx, which
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
        """Read one image, and say what was chosen in it. Raises: UserError when it cannot be used; it says why."""
        try:
            data = contents(str(path))
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})", 2) from e
        key = key_of(path.name)
        values: dict[str, Any] = {"source": data}
        for step in self.steps[collection]:
            row = one(self._worker(step, collection), Item(key, values, path.name))
            values |= {f"{step.output}.{n}": v for n, v in row.items()}
            if note := row.get("note"):
                other = "; --face N takes the Nth from the left" if "faces" in note and collection == "content" else ""
                say(f"{path.name}: {note}{other}")
        row = {name: values[f"{file}.{name}"] for file, columns in PIXELS.items() for name in columns}
        row |= {name: np.asarray(value) for name, value in row.items() if name != "image"}
        return assemble(key, row, self.ctx.profile.align.size)

    def _worker(self, step: StageSpec, collection: str) -> Worker:
        """The step's worker. Collections with the same recipe share it."""
        which = self.which if (step.name, collection) == ("align", "content") else None
        recipe = json.dumps([step.recipe(), which], sort_keys=True)
        if recipe not in self.workers:
            keep = step.params.get("no_face") == "keep"
            self.workers[recipe] = step.open(self.ctx) if which is None else align.open_worker(self.ctx, keep, which)
        return self.workers[recipe]
