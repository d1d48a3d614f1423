"""What a stylised portrait costs: the generator at 1024 px and its 256 px cut, and the core forward from the caches.

Run: `make bench`, or `python bench/forward.py`. Times are medians in one process; compare by ratio.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from models import hypernetwork
from pipeline import profile
from pipeline.context import Context
from stages import networks

RUNS = 5


def clock(work: Callable[[], object]) -> float:
    """Median seconds after one warm-up."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


@torch.no_grad()
def main() -> None:
    """Print a table of seconds and ratios to the 256 px cut."""
    ctx = Context(profile=profile.load("portable"))
    cut, full = networks.generator(ctx), networks.generator(ctx, full=True)
    hyper = networks.trained_hypernetwork(ctx, cut.layer_table())
    latent = cut.mean_latent()[None, None].expand(1, 18, -1)
    x, codes, region = cut(latent).clamp(-1, 1), torch.randn(1, 4, 256), torch.randint(0, 3, (1, 256, 256)).byte()
    deltas = hyper(x, x, codes, region)
    rows = {
        "generator, 256 px cut": lambda: cut(latent),
        "generator, 256 px cut with deltas": lambda: cut(latent, deltas),
        "generator, 1024 px": lambda: full(latent),
        "hypernetwork": lambda: hyper(x, x, codes, region),
        "core forward, 3 refinements": lambda: hypernetwork.render(hyper, cut, x, latent, codes, region, 3),
    }
    times = {name: clock(work) for name, work in rows.items()}
    base = times["generator, 256 px cut"]
    print("| what | seconds | ratio |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.3f} | {seconds / base:.2f} |")


if __name__ == "__main__":
    main()
