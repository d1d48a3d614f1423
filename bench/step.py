"""Processor seconds of a stylisation step of the portable profile: by the generator, and one image at a time.

Run: `make bench`, or `python bench/step.py`. Medians in one process, without discriminators; compare by ratio.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F

from bench.forward import portrait_regions
from models.backbones.trunks import Trunk
from models.losses.objectives import Batch
from models.losses.region_style import RegionStyleLoss
from pipeline import profile, weights
from pipeline.context import Context
from pipeline.training.distributed import ALONE
from stages.loaders import generator as generators
from stages.train.data import Pair
from stages.train.state import build, enter_phase, start
from stages.train.step import Step

RUNS = 5


def step_of(run: Path, precision: str, *, plain: bool) -> Step:
    """A step from the shipped weights; `plain` with what batches and GPUs are rendered and judged by."""
    portable = profile.load("portable")
    settings = dataclasses.replace(portable.train, precision=precision, lambda2=0.0)
    ctx = Context(profile=dataclasses.replace(portable, train=settings), run=run, device="cpu")
    generator = generators.generator(ctx)
    state = start(ctx, build(ctx, generator), generator, True, ALONE, "stylize")
    enter_phase(state, settings)
    step = Step(ctx, state, generator)
    if plain:
        step.rows, step.stylization.term = None, RegionStyleLoss(Trunk("vgg16", weights.tensors("lpips-vgg")))
    return step


def pair(step: Step) -> Pair:
    """A portrait of the generator, and coloured squares as its style."""
    rng = torch.Generator().manual_seed(0)
    latent = step.generator.mean_latent()[None, None].expand(1, 18, -1).clone()  # type: ignore[operator]
    with torch.no_grad():
        x = step.generator(latent).clamp(-1, 1)
    style = F.interpolate(torch.rand(1, 3, 64, 64, generator=rng) * 2 - 1, (256, 256))
    codes = F.normalize(torch.randn(1, 4, 256, generator=rng), dim=-1)
    region = portrait_regions()
    return Pair(0, Batch(x, latent, region, codes), Batch(style, latent, region, codes))


def main() -> None:
    """Print a table of seconds and ratios, stylisation alone and with a reconstruction."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            f"{'generator' if plain else 'single renderer'}, {precision}": step_of(Path(folder), precision, plain=plain)
            for precision in ("float32", "bfloat16")
            for plain in (True, False)
        }
    both = pair(next(iter(steps.values())))
    times: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(RUNS):
        for name, step in steps.items():
            seconds = []
            for step.state.step in (1, 2):  # the second has a reconstruction
                began = time.process_time()
                step([both])
                seconds.append(time.process_time() - began)
            times[name].append(seconds)
    medians = {name: np.array([median(column) for column in zip(*runs, strict=True)]) for name, runs in times.items()}
    base = next(iter(medians.values()))
    print("| step | stylisation | ratio | with reconstruction | ratio |\n|---|---|---|---|---|")
    for name, (alone, with_reconstruction) in medians.items():
        print(
            f"| {name} | {alone:.2f} | {base[0] / alone:.2f} | {with_reconstruction:.2f} "
            f"| {base[1] / with_reconstruction:.2f} |"
        )


if __name__ == "__main__":
    main()
