"""Exact search among many style codes: `python bench/styles/search.py [1000 100000 1000000]`.

Codes are random and in memory, as in a studio that keeps them. Goals: 100,000 in less than 0.1 s, no copy of the codes.
"""

import resource
import sys
import time

import numpy as np

from stages.styles import blocks
from stages.styles.blocks import Block

TIMES = 5


def main(*counts: int) -> None:
    """Print a table: seconds of one search, the best of TIMES, and the memory held at the end."""
    print("| styles | s per search, best of 5 | processor s | MB of codes | peak MB of it all |\n|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for count in counts:
        held = []
        for start in range(0, count, blocks.ROWS):
            keys = [f"style{i:07}" for i in range(start, min(start + blocks.ROWS, count))]
            held.append(Block(keys, keys, blocks.unit(rng.random((len(keys), 256), np.float32) - 0.5)))
        query = rng.normal(size=(1, 256))
        times = []
        for _ in range(TIMES):
            begun = time.perf_counter(), time.process_time()
            found = blocks.nearest(held, query, 12)[0]
            times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
            assert len(found) == 12
        size = sum(block.codes.nbytes for block in held) / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"| {count:,} | {min(times)[0]:.3f} | {min(time for _, time in times):.3f} | {size:.0f} | {peak:.0f} |")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if sys.argv[1:] else (1_000, 100_000, 1_000_000)))
