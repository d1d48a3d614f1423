"""Train a method to compare with on the shards, content and style in pairs; `eval` then takes its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import files, images, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.reports import sheets
from pipeline.shards.indexed import Samples
from pipeline.training import checkpoint
from pipeline.training.distributed import ALONE
from pipeline.training.loop import SAVE_EVERY, Loop, lock_run
from pipeline.training.prefetch import Prefetcher
from pipeline.training.state import State
from stages.baselines.artflow import ArtFlow
from stages.baselines.attention import ContraAST, SANet
from stages.baselines.pama import PAMA
from stages.baselines.sae import SAE
from stages.baselines.training import ENCODER, Pairs, Training, image_of, to_device
from stages.evaluate.methods import trained_folder
from stages.train import page

TRAININGS: Mapping[str, type[Training]] = {
    "sanet": SANet, "pama": PAMA, "contraast": ContraAST, "artflow": ArtFlow, "sae": SAE,
}  # fmt: skip
FULL = {"artflow"}  # methods whose weights do not bear fp16: inverses of the flow amplify its errors
SIDE = 3  # contents and styles of the grid


def run(ctx: Context, *, method: str, steps: int | None = None, minutes: float | None = None) -> int:
    """Train `method` until `steps` in all (default: the profile's), or `minutes` of this call; run again to resume.

    Checkpoint, log, grids, page and, with every checkpoint, the weights in their published layout lie in
    runs/<run>/baselines/<method>.
    Raises: UserError(2) when the profile's crop or batch does not suit the method.
    """
    settings, kind, folder = ctx.profile.baselines, TRAININGS[method], trained_folder(ctx, method)
    name, batch = f"train-baseline {method}", settings.batch or kind.BATCH
    if settings.crop % kind.MULTIPLE or settings.crop < kind.LEAST:
        allowed = f"multiples of {kind.MULTIPLE} px from {kind.LEAST}"
        raise UserError(f"baselines.crop is {settings.crop}; {method} takes {allowed}", 2)
    if method == "contraast" and batch < 2:
        raise UserError(f"baselines.batch is {batch}; contraast contrasts at least 2 pairs", 2)
    with lock_run(folder, ALONE, name):
        pairs = Pairs(ctx, settings.crop, batch)
        torch.manual_seed(ctx.profile.seed)
        training = kind(ctx)
        recipe: dict[str, Any] = {"method": method, "batch": batch, "crop": settings.crop, "seed": ctx.profile.seed}
        if method == "sae":
            recipe["sae_capacity"] = settings.sae_capacity
        else:
            recipe |= {"encoder": weights.sha256(ENCODER), "warm_up": settings.warm_up}
        if method not in ("sae", "artflow"):
            recipe["decoder"] = weights.sha256(settings.decoder) if settings.decoder else ""
        if method in ("sanet", "contraast") and settings.transformer:
            recipe["transformer"] = weights.sha256(settings.transformer)
        sets = dict(zip(COLLECTIONS, pairs.samples, strict=True))
        data = {name: samples.identity() for name, samples in sets.items()}
        state = State(folder / "checkpoint.safetensors", training.nets, training.optimisers, recipe, data)
        state.resume()
        grid = Grid(ctx, training.model)

        def saved(step: int) -> None:
            _write(training, folder, method, step, {name: len(samples) for name, samples in sets.items()})
            sheet = grid.draw()
            loop.picture("grid", sheet)
            files.write_atomic(folder / page.GRIDS / f"step-{step:06d}.png", images.encode(sheet))
            page.write_of(ctx, folder, f"Training of {method}")

        total = settings.steps if steps is None else steps
        loop = Loop.of(name, state, total, saved=saved, minutes=minutes, images=batch, save_every=SAVE_EVERY)
        with loop, Prefetcher(pairs.__getitem__) as prefetched:
            for step in loop:
                loop.tell(train_step(training, to_device(prefetched[step], ctx.device), step, loop))
    say(f"{name}: {state.step} steps in {folder}; `hypernst eval --methods {method}` measures it")
    return 0


def train_step(training: Training, batch: tuple[Tensor, Tensor], step: int, loop: Loop) -> dict[str, float]:
    """One step on contents and styles [N, 3, C, C] in [-1, 1]; its losses."""
    terms, bad = training.step(*batch, step)
    loop.count(bad)
    return terms


def _write(training: Training, folder: Path, method: str, step: int, counts: Mapping[str, int]) -> None:
    """The weights as published files are kept, a file each."""
    for name, tensors in training.weights().items():
        meta = {
            "what": f"{name}, trained by this project",
            "steps": step,
            "data": f"{counts['content']} contents and {counts['style']} styles",
            "command": f"hypernst train-baseline {method}",
        }
        kept = tensors if method in FULL else checkpoint.half(tensors)
        checkpoint.save(folder / f"{name}.safetensors", kept, meta)


class Grid:
    """The first held-out contents in the first held-out styles (or training ones where none are held out)."""

    def __init__(self, ctx: Context, model: nn.Module) -> None:
        self.model, self.device = model, ctx.device
        self.contents, self.styles = (_held_out(ctx, name) for name in COLLECTIONS)

    def draw(self) -> np.ndarray:
        """The grid u8 [H, W, 3]: styles on top, then a row per content."""
        rows = []
        for content in self.contents:
            row = [content]
            for style in self.styles:
                a, b = to_device((content, style), self.device)
                with torch.no_grad():
                    row.append(images.to_arrays(self.model(a, b))[0])
            rows.append(row)
        blank = np.full_like(self.contents[0], 255)
        return sheets.grid(rows, ["content", *("stylised" for _ in self.styles)], [[blank, *self.styles]])


def _held_out(ctx: Context, collection: str) -> list[np.ndarray]:
    try:
        samples = Samples(ctx.training_shards, collection, "test")
    except UserError:  # the set is so small that none is held out
        samples = Samples(ctx.training_shards, collection, "train")
    return [image_of(samples, i) for i in range(min(SIDE, len(samples)))]
