"""What `eval` costs beside the method itself: `python bench/evaluate/pairs.py [256]`, the most pairs to measure.

Goals: under 5 % of processor time over AdaIN's bare network at 256 px, and memory that does not grow with the pairs.
"""

import gc
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import psutil
import torch

from models.baselines.adain import AdaIN
from pipeline import images, profile, weights
from pipeline.context import Context
from stages.evaluate import comparison
from stages.evaluate.methods import METHODS, baseline
from stages.evaluate.metrics import Metrics
from stages.portraits.portrait import Portrait

TIMES = 7


def portrait(seed: int, side: int) -> Portrait:
    """Random pixels, as a portrait whose other fields are empty."""
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    empty = np.zeros((256, 256), np.uint8), np.zeros((18, 512), np.float32), np.zeros((4, 256), np.float32)
    return Portrait(str(seed), image, *empty, np.ones(3, bool))


def clock(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def overhead(ctx: Context) -> None:
    """Print a table: the median seconds of a bare network and through `eval`'s code path, in turn."""
    content, style = portrait(0, 256), portrait(1, 256)
    apply = METHODS["adain"].open(ctx)
    net = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder"))
    a, b = (images.to_tensor(p.image) for p in (content, style))

    def bare() -> None:
        with torch.inference_mode():
            net(a, b)

    bare()
    apply(content, style)
    alone, within = [], []
    for _ in range(TIMES):
        alone.append(clock(bare))
        within.append(clock(lambda: apply(content, style)))
    one, other = median(alone), median(within)
    print("| bare AdaIN, processor s | through eval | more |\n|---|---|---|")
    print(f"| {one:.3f} | {other:.3f} | {other / one - 1:+.1%} |\n")


def memory(ctx: Context, most: int) -> None:
    """Print a table: memory held after so many pairs of a method that costs nothing, the metrics with it."""

    class Mean:
        def to(self, _: str) -> "Mean":
            return self

        def __call__(self, content: torch.Tensor, style: torch.Tensor, *, alpha: float = 1.0) -> torch.Tensor:
            return torch.lerp(content, style, alpha / 2)

    side = 64
    faces, styles = ([portrait(i + start, side) for i in range(int(most**0.5))] for start in (0, 1000))
    process = psutil.Process()
    print("| pairs | MB held |\n|---|---|")
    cells = comparison.cells(ctx, Metrics(ctx), {"mean": baseline("Mean", Mean)}, faces, styles)
    for seen, _ in enumerate(cells, 1):
        if seen & (seen - 1) == 0 and seen >= 8:
            gc.collect()
            print(f"| {seen} | {process.memory_info().rss / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    here = Context(profile.load("portable"))
    overhead(here)
    memory(here, int(sys.argv[1]) if sys.argv[1:] else 256)
