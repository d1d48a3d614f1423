"""Seconds of a stylised portrait: the generator at 1024 px, its 256 px cut, and the forward pass from the caches.

Run: `make bench`, or `python bench/forward.py`. Times are medians in one process; compare by ratio.
"""

import functools
import time
from collections.abc import Callable
from statistics import median

import torch

from models.hypernetworks import hypernetwork
from pipeline import profile
from pipeline.context import Context
from stages.loaders import generator as networks
from stages.loaders import hypernetwork as hypernetworks

RUNS = 5


def clock(work: Callable[[], object]) -> float:
    """The median seconds of a call, after one warm-up."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def portrait_regions() -> torch.Tensor:
    """A region map u8 [1, 256, 256]: a disc of face inside a disc of hair, on background."""
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    region = torch.full((256, 256), 2, dtype=torch.uint8)
    region[(x - 128) ** 2 + (y - 120) ** 2 < 100**2] = 0
    region[(x - 128) ** 2 + (y - 140) ** 2 < 70**2] = 1
    return region[None]


@torch.no_grad()
def main() -> None:
    """Print a table of seconds, and of ratios to the 256 px cut."""
    ctx = Context(profile=profile.load("portable"))
    cut, full = networks.generator(ctx), networks.generator(ctx, full=True)
    hyper = hypernetworks.trained_hypernetwork(ctx, cut.layer_table())
    latent = cut.mean_latent()[None, None].expand(1, 18, -1)
    x, codes, region = cut(latent).clamp(-1, 1), torch.randn(1, 4, 256), portrait_regions()
    by_region = hyper(x, x, codes, region)
    everywhere, region_weights = [d[:, 0] for d in by_region], hyper.region_weights(region)
    rows = {
        "generator, 256 px cut": lambda: cut(latent),
        "generator, 256 px cut with deltas everywhere": lambda: cut(latent, everywhere),
        "generator, 256 px cut with deltas by region": lambda: cut(latent, by_region, region_weights),
        "generator, 1024 px": lambda: full(latent),
        "hypernetwork": lambda: hyper(x, x, codes, region),
        **{
            f"core forward, refinement_iterations: {n}": functools.partial(
                hypernetwork.render, hyper, cut, x, latent, codes, region, n
            )
            for n in (1, 3)
        },
    }
    times = {name: clock(work) for name, work in rows.items()}
    base = times["generator, 256 px cut"]
    print("| what | seconds | ratio |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.3f} | {seconds / base:.2f} |")


if __name__ == "__main__":
    main()
