"""Turns single image files into portraits, by the preprocessing stages."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pipeline import images
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.files import read_error
from pipeline.progress import say
from pipeline.runner.spec import Item, StageSpec, Worker
from pipeline.sources.keys import key_of
from pipeline.sources.reader import contents
from stages.portraits.kept import KeptPortraits
from stages.portraits.portrait import PIXELS, Origin, Portrait, assemble, one
from stages.preprocess import aladin_codes, align, latents, masks

Progress = Callable[[str, int, int], None]  # what is being done, and its place among so many


def quiet(what: str, done: int, of: int) -> None:
    """Report nothing."""


class PortraitReader:
    """Turns image files into portraits. Each stage's networks are loaded when the first image needs them.

    Rows of earlier images are taken from `kept`, and new ones go there. A style gets no latent, [0, 512]: only its
    codes, its image and its regions are used. A `draft` has the encoder's latent, and codes of one window a region,
    unless better ones are kept. Its `workers` may be those of another reader. `note` is told what was chosen.
    """

    def __init__(
        self,
        ctx: Context,
        kept: KeptPortraits | None = None,
        progress: Progress = quiet,
        draft: bool = False,
        workers: dict[str, Worker] | None = None,
        note: Callable[[str], None] = say,
    ) -> None:
        self.ctx, self.kept, self.progress, self.draft = ctx, kept, progress, draft
        self.workers, self.note = {} if workers is None else workers, note
        section = dataclasses.replace(ctx.profile.aladin, patches=1)
        self.few_windows = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, aladin=section))

    def __call__(self, data: bytes, name: str, collection: str, which: int | None = None) -> Portrait:
        """Read an image file's bytes as "content" or "style", and say what was chosen in it.

        `which` is the face to take of several ones in a content image, counted from the left and from 1; None: the
        largest. Raises: UserError when it cannot be used; it says why.
        """
        if which is not None and (isinstance(which, bool) or not isinstance(which, int) or which < 1):
            raise UserError(f"face is {which!r}; expected a number, counted from the left and from 1", 2)
        steps = self.steps(collection)
        sha256 = hashlib.sha256(data).hexdigest()
        rows = self.kept.rows(sha256, steps, which) if self.kept else {}
        values: dict[str, Any] = {"source": data}
        for number, step in enumerate(steps):
            row = rows.get(step.output)
            if row is None:
                rough = self._rough(step) if self.draft else None
                step = rough or step
                self.progress(f"{name}: {step.name}", number, len(steps))
                row = step.check(dict(one(self._worker(step, collection, which), Item(sha256, values, name))), name)
                if self.kept and not rough:
                    self.kept.put(sha256, steps, which, step, row)
            values |= {f"{step.output}.{n}": v for n, v in row.items()}
            if note := row.get("note"):
                other = "; --face N takes the Nth from the left" if "faces" in note and collection == "content" else ""
                self.note(f"{name}: {note}{other}")
        return self._assembled(values, Origin(name, sha256, which))

    def _rough(self, step: StageSpec) -> StageSpec | None:
        """The step as a draft goes through it; None where it is the same."""
        if step.output == "latents":
            return latents.spec(self.ctx, COLLECTIONS[1])  # styles are not optimised
        if step.output == "aladin":
            few = aladin_codes.spec(self.few_windows)
            return dataclasses.replace(few, open=lambda ctx: few.open(self.few_windows))
        return None

    def kept_style(self, name: str, sha256: str) -> Portrait | None:
        """A style whose file was read earlier and is known by its sha256; None where its rows are not kept."""
        steps = self.steps("style")
        rows = self.kept.rows(sha256, steps, None) if self.kept else {}
        if len(rows) < len(steps):
            return None
        return self._assembled(
            {f"{output}.{column}": value for output, row in rows.items() for column, value in row.items()},
            Origin(name, sha256),
        )

    def regions(self, rgb: np.ndarray) -> np.ndarray:
        """The region map u8 [256, 256] of an aligned picture of a face, RGB u8 [S, S, 3]; nothing is kept."""
        values: dict[str, Any] = {"images.image": images.encode(rgb), "images.score": 1.0}
        for step in (masks.parse_spec(self.ctx), masks.spec(self.ctx)):
            row = one(self._worker(step, COLLECTIONS[0], None), Item("edited", values))
            values |= {f"{step.output}.{column}": value for column, value in row.items()}
        return np.asarray(values["masks.region"])

    def _assembled(self, values: dict[str, Any], origin: Origin) -> Portrait:
        values.setdefault("latents.latent", np.zeros((0, 512), np.float32))
        row = {column: values[f"{file}.{column}"] for file, columns in PIXELS.items() for column in columns}
        row |= {column: np.asarray(value) for column, value in row.items() if column != "image"}
        portrait = assemble(key_of(origin.name), row, self.ctx.profile.align.size)
        return dataclasses.replace(portrait, origin=origin)

    def steps(self, collection: str) -> Sequence[StageSpec]:
        """The stages that a single image of a collection goes through, in order."""
        needed = (align.spec(self.ctx, collection), masks.parse_spec(self.ctx), masks.spec(self.ctx))
        inverted = (latents.spec(self.ctx),) if collection == COLLECTIONS[0] else ()
        return (*needed, *inverted, aladin_codes.spec(self.ctx))

    def _worker(self, step: StageSpec, collection: str, which: int | None) -> Worker:
        """The step's worker. Collections with the same recipe share it."""
        which = which if (step.name, collection) == ("align", "content") else None
        recipe = json.dumps([step.recipe(), which], sort_keys=True)
        if recipe not in self.workers:
            keep = step.params.get("no_face") == "keep"
            self.workers[recipe] = step.open(self.ctx) if which is None else align.open_worker(self.ctx, keep, which)
        return self.workers[recipe]


def file_of(image: Any) -> tuple[bytes, str]:
    """The bytes and the name of an image's file; images in memory become PNG files."""
    if isinstance(image, bytes):
        return image, f"image-{hashlib.sha256(image).hexdigest()[:8]}"
    if isinstance(image, str | Path):
        try:
            return contents(str(image)), Path(image).name
        except FileNotFoundError:
            raise UserError(f"{image}: is not a file; expected an image", 2) from None
        except OSError as error:
            if error.errno:
                raise read_error(error.errno, Path(image)) from error
            raise UserError(f"{image}: cannot be read ({error.strerror})", 2) from error
    if isinstance(image, np.ndarray):
        fits = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)))
        if not fits or not image.size:
            raise UserError(
                f"an array {image.dtype} {list(image.shape)}; expected uint8 [H, W], [H, W, 3] or [H, W, 4]", 2
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise UserError(f"a {type(image).__name__}; expected a path, a PIL image, an array or a portrait", 2)
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        upright = upright.convert("RGB")
    written = io.BytesIO()
    upright.save(written, "PNG", compress_level=1)
    data = written.getvalue()
    return data, f"image-{hashlib.sha256(data).hexdigest()[:8]}.png"
