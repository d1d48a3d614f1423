"""What caches cost as they grow: filled with N images, then more added, read and verified; and a model fitted to it.

The stages are those of the tiny profile, with noise in place of their networks. Each step is a process of its own; its
processor seconds, its seconds by the clock, the bytes that it wrote and its peak memory are told, over all stages of
one collection. `python bench/caches/growth.py 1000:10 100000:100` adds 10 to 1,000 and 100 to 100,000. Large caches are
made of copies of one full volume with other keys.
"""

import dataclasses
import functools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from pipeline import images, profile
from pipeline.caches import volumes
from pipeline.caches.digests import labels_digest
from pipeline.caches.merge import compact
from pipeline.caches.output import FORMAT
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Column, Entry, Layout, Row
from pipeline.caches.volume import Head, Volume
from pipeline.context import Context
from pipeline.hashing import digest
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, StageSpec, Worker
from stages.preprocess import chain
from stages.tools import explain, inspect, verify

SIZES = ("1000:10", "10000:100", "100000:100")
NOISE = 64  # different rows per stage
COLLECTION = "content"


def noise(column: Column, rng: np.random.Generator) -> object:
    """A value of a column, which packs about as well as a real one."""
    if column.dtype == "bytes":
        return images.encode(rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1), ".jpg")
    if column.dtype == "u1":
        return np.kron(rng.integers(0, 3, [max(1, side // 32) for side in column.shape]), np.ones((32, 32), int))
    whole = np.dtype(column.dtype).kind in "iub"
    return rng.integers(0, 2, column.shape) if whole else rng.random(column.shape, np.float32)


def opened(stage: StageSpec, ctx: Context) -> Worker:
    """A worker whose rows are noise that the key decides."""
    rng = np.random.default_rng(0)
    columns = {name: c for name, c in stage.columns.items() if c.dtype not in ("text", "label")}
    pool: list[Row] = [{name: noise(c, rng) for name, c in columns.items()} for _ in range(NOISE)]

    def work(items: Sequence[Item]) -> list[Row]:
        texts = [name for name in stage.columns if name not in columns]
        return [pool[zlib.crc32(i.key.encode()) % NOISE] | dict.fromkeys(texts, i.path) for i in items]

    return work


def every_stage(ctx: Context) -> None:
    """Run all stages that fill a cache."""
    for stage in (stage for name in chain.CACHED for stage in chain.steps(name, COLLECTION, ctx)):
        run_stage(dataclasses.replace(stage, open=functools.partial(opened, stage), batch=64), COLLECTION, ctx)


def rewrite(ctx: Context) -> None:
    """As `every_stage`, with each cache rewritten as one file: what an addition costs without volumes."""
    volumes.FULL = sys.maxsize
    volumes.to_merge = lambda sizes, added: set(sizes)
    every_stage(ctx)


def multiply(ctx: Context) -> None:
    """Make volumes of the one full file that each cache is, for as many sources as the file `size` says."""
    size = json.loads((ctx.cache.parent / "size").read_text())
    count = size // volumes.FULL
    for path in sorted((ctx.cache / COLLECTION).glob("*.h5")):
        volumes.folder(path).mkdir()
        files = [volumes.file(path, number + 1) for number in range(count)]
        entries: dict[str, Entry] = {}
        heads: dict[int, Head] = {}
        for number, file in enumerate(files):
            shutil.copy(path, file)
            if number:
                rename(file, f"-{number:03d}", ctx.content)
            with Volume(file) as volume:
                entries |= volume.entries(number)
                heads[number] = volume.head()
        with Cache(path) as cache:
            layout = Layout(cache.columns, cache.width, cache.provenance)
        compact(path, files, entries, layout, kept=heads)
    write_sources(ctx, count * volumes.FULL, size % volumes.FULL)
    every_stage(ctx)


def rename(file: Path, ending: str, sources: Path) -> None:
    """Give the rows of a file other keys; a file of images gets sources with other content as well."""
    with h5py.File(file, "r+", libver=FORMAT, locking=False) as f:
        keys = [f"{key.decode()}{ending}" for key in f["key"]]
        f["key"][:] = [key.encode() for key in keys]
        if "path" in f:
            for key in keys:
                (sources / f"{key}.jpg").write_text(key)
            f["path"][:] = [f"{key}.jpg" for key in keys]
            f["path"].attrs["digest"] = np.bytes_(labels_digest(f"{key}.jpg" for key in keys))
            f["inputs"][:] = np.array([list(digest(key.encode())) for key in keys])[:, None]
        del f.attrs["rows"]
    with Volume(file) as volume:
        rows = volume.rows_digest()
    with h5py.File(file, "r+", libver=FORMAT, locking=False) as f:
        f.attrs["rows"] = np.bytes_(rows)


STEPS: dict[str, Callable[[Context], object]] = {
    "fill": every_stage,
    "multiply": multiply,
    "add": every_stage,
    "nothing to do": every_stage,
    "explain": lambda ctx: explain.explain("align", ctx),
    "inspect": lambda ctx: inspect.run(ctx.file(COLLECTION, "latents")),
    "verify": lambda ctx: verify.check(ctx),
    "verify again": lambda ctx: verify.check(ctx),
    "add, all rewritten": rewrite,
}


def context(base: Path) -> Context:
    """The context of a run in the folder `base`."""
    return Context(profile.load("tiny"), cache=base / "cache", content=base / "in", style=base / "in")


def write_sources(ctx: Context, first: int, count: int) -> None:
    """Write `count` files, whose names are spread among those of all others."""
    ctx.content.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        (ctx.content / f"k{zlib.crc32(str(i).encode()) % 1000:03d}-{i:07d}.jpg").write_text(str(i))


def step(name: str, base: Path) -> None:
    """Run one step in this process and print what it took."""
    start = time.monotonic()
    STEPS[name](context(base))
    clock = time.monotonic() - start
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    written = int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])
    print(json.dumps([used, clock, written / 1e6, own.ru_maxrss / 1e3]))


def measured(base: Path, size: int, more: int) -> dict[str, list[float]]:
    """What each step took, with `size` images, and `more` for each addition."""
    ctx, taken, at = context(base), {}, 0
    first = size if size < 2 * volumes.FULL else volumes.FULL
    for name in (name for name in STEPS if name != "multiply" or first < size):
        count = first if name == "fill" else more if name.startswith("add") else 0
        write_sources(ctx, at, count)
        at = size if name == "multiply" else at + count
        if name == "multiply":
            (base / "size").write_text(str(size))
        command = [sys.executable, __file__, "step", name, str(base)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"| {size:,} + {more} | {name} | {' | '.join(f'{v:,.1f}' for v in taken[name])} |", flush=True)
    return taken


def fitted(sizes: Sequence[int], costs: Sequence[float]) -> str:
    """A line through the costs, by least squares of their ratios: at most so much once, so much per 1,000 rows."""
    weights = 1 / np.maximum(costs, 1e-9)
    a, b = np.linalg.lstsq(np.stack([weights, np.array(sizes) / 1000 * weights], 1), np.ones(len(sizes)), rcond=None)[0]
    return f"{a:.2f} + {b:.3f} per 1,000"


def main(words: Sequence[str]) -> None:
    """Print the costs at each size, the lines fitted to them, and additions against rewriting."""
    pairs = [tuple(map(int, word.split(":"))) for word in words]
    print("| images | step | processor seconds | clock | MB written | peak MB |\n|---|---|---|---|---|---|")
    taken = {}
    for size, more in pairs:
        with tempfile.TemporaryDirectory() as base:
            taken[size] = measured(Path(base), size, more)
    print("\n| step | processor seconds | MB written | peak MB |\n|---|---|---|---|")
    for name in STEPS:
        there = [size for size in taken if name in taken[size] and (name != "fill" or size < 2 * volumes.FULL)]
        if len(there) < 2:
            continue
        lines = [fitted(there, [taken[size][name][which] for size in there]) for which in (0, 2, 3)]
        print(f"| {name} | {' | '.join(lines)} |")
    print("\n| images | processor seconds | clock | MB written: of rewriting all |\n|---|---|---|---|")
    for size, more in pairs:
        shares = (a / b for a, b in zip(taken[size]["add"][:3], taken[size]["add, all rewritten"][:3], strict=True))
        print(f"| {size:,} + {more} | {' | '.join(f'{share:.1%}' for share in shares)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        step(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:] or SIZES)
