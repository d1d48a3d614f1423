"""What a million pictures and more would cost: bytes, files, memory, seconds, Ray tasks and searches, from small runs.

`python bench/caches/growth.py > growth.md` measures what steps cost at some sizes. `python bench/caches/projection.py
growth.md` fits lines to these, measures the bytes of a picture in the portable profile's caches and shards and the
seconds of a search, and draws all of it out to 1 M, 10 M and 100 M pictures. The last column says up to which size this
machine, a day, a second or a million files are enough. A line is only right while nothing new breaks.
"""

import dataclasses
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from bench.caches import growth
from pipeline import images, profile
from pipeline.caches import volumes
from pipeline.caches.schema import Column
from pipeline.runner import compute
from stages.preprocess import shards
from stages.styles import blocks
from stages.styles.blocks import Block

SIZES = (10**6, 10**7, 10**8)
SAMPLE = 256  # pictures whose bytes are measured
CODES = 20_000  # codes that are searched
SECONDS = 1.0  # of work per picture, for Ray's tasks
small_noise = growth.noise
ROW = re.compile(r"\| ([\d,]+) \+ \d+ \| ([^|]+) \| ([\d.,]+) \| [\d.,]+ \| [\d.,]+ \| ([\d.,]+) \|")


def lines(table: str) -> dict[tuple[str, str], Callable[[int], float]]:
    """(step, "seconds" or "peak MB") -> its line, fitted to the rows of growth.py at two sizes or more."""
    points: defaultdict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for size, step, seconds, peak in ROW.findall(table):
        for name, value in (("seconds", seconds), ("peak MB", peak)):
            points[step, name].append((int(size.replace(",", "")), float(value.replace(",", ""))))
    return {what: line(*np.array(found).T) for what, found in points.items() if len(found) > 1}


def line(sizes: np.ndarray, costs: np.ndarray) -> Callable[[int], float]:
    """The line with the least squares of its ratios to the costs."""
    slope, start = np.polyfit(sizes, costs, 1, w=1 / np.maximum(costs, 1e-3))
    return lambda count: float(start + slope * count)


def noise(column: Column, rng: np.random.Generator) -> object:
    """As growth.py's, with images of 256 px that take about as many bytes as photos do."""
    if column.dtype == "bytes":
        return images.encode(rng.integers(60, 180, (32, 32, 3), np.uint8).repeat(8, 0).repeat(8, 1), ".jpg", 95)
    return small_noise(column, rng)


def per_picture() -> tuple[float, float, float]:
    """Bytes of the caches of a collection, its volumes, and bytes of its shards, in the portable profile."""
    with tempfile.TemporaryDirectory() as base:
        ctx = dataclasses.replace(growth.context(Path(base)), profile=profile.load("portable"))
        growth.write_sources(ctx, 0, SAMPLE)
        growth.noise = noise
        growth.every_stage(ctx)
        shards.run(ctx, (growth.COLLECTION,))
        caches, packed = (
            sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            for folder in (ctx.cache / growth.COLLECTION, ctx.shards)
        )
        count = len(list((ctx.cache / growth.COLLECTION).glob("*.h5")))
    return caches / SAMPLE, count / volumes.FULL, packed / SAMPLE


def search_seconds() -> float:
    """Seconds of a search among CODES codes, per code."""
    rng = np.random.default_rng(0)
    keys = [str(i) for i in range(CODES)]
    held = [Block(keys, keys, blocks.unit(rng.random((CODES, 256), np.float32) - 0.5))]
    start = time.process_time()
    blocks.nearest(held, rng.normal(size=(1, 256)), 12)
    return (time.process_time() - start) / CODES


def main(file: str) -> None:
    """Print the table."""
    fits = lines(Path(file).read_text())
    caches, files, packed = per_picture()
    search, shard = search_seconds(), profile.load("portable").shards.max_mb * 1e6
    disk, memory = shutil.disk_usage(".").total / 1e9, psutil.virtual_memory().total / 1e9
    day = 86_400.0
    rows: list[tuple[str, Callable[[int], float], float]] = [
        ("GB of caches", lambda n: n * caches / 1e9, disk),
        ("GB of shards", lambda n: n * packed / 1e9, disk),
        ("files of caches", lambda n: n * files, 1e6),
        ("shards", lambda n: n * packed / shard, 1e6),
        ("Ray tasks, at 1 s per picture", lambda n: n * SECONDS / compute.PART_SECONDS, 1e6),
        ("GB of codes searched", lambda n: n * 256 * 4 / 1e9, memory),
        ("seconds of a search in memory", lambda n: n * search, 1.0),
    ]
    for step in ("nothing to do", "add", "explain", "verify", "verify again"):
        if (step, "seconds") in fits:
            rows.append((f"seconds: {step}", fits[step, "seconds"], day))
            rows.append((f"MB of memory: {step}", fits[step, "peak MB"], 1e3 * memory))
    print(f"| what | {' | '.join(f'{size // 10**6} M' for size in SIZES)} | enough up to |\n|---|---|---|---|---|")
    for name, cost, most in rows:
        fits_up_to = max((n for n in np.logspace(3, 12, 181) if cost(int(n)) <= most), default=0)
        print(f"| {name} | {' | '.join(f'{cost(size):,.3g}' for size in SIZES)} | {fits_up_to:,.2g} |")


if __name__ == "__main__":
    main(sys.argv[1])
