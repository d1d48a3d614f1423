"""The cost of 20,000 images against 1,000: peak memory of every kind of stage and reader, and commands without work.

The workers only generate random numbers, so all memory growth is the pipeline's own. A row has about 10 kB. Each figure
is the peak of a separate process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import images, profile
from pipeline.caches.schema import Row
from pipeline.context import Context
from pipeline.runner.spec import Item, StageSpec, Worker
from tests.support.caches import SPECS

FEW, MANY = 1000, 20_000
STEPS = {
    "a stage that reads files": "images",
    "a stage that reads a cache": "latents",
    "masks": "masks",
    "codes": "aladin",
    "packing shards": "shards",
    "indexed reader": "indexed",
}


def stage(name: str) -> StageSpec:
    """A stage whose rows are cheap to compute."""
    rng = np.random.default_rng(0)
    image = images.encode(rng.integers(0, 255, (32, 32, 3), np.uint8), ".jpg")

    def work(items: Sequence[Item]) -> list[Row]:
        rows: list[Row] = []
        for item in items:
            row: Row = {n: rng.random(c.shape) for n, c in SPECS[name].items() if c.dtype not in ("bytes", "text")}
            rows.append(row | ({"image": image, "path": item.path} if name == "images" else {}))
        return rows

    def opened(_: Context) -> Worker:
        return work

    parents = {} if name == "images" else {"images": ("image",)}
    return StageSpec(name=name, output=name, columns=SPECS[name], open=opened, parents=parents, batch=64)


def step(name: str, ctx: Context) -> None:
    """Run one step on everything in `ctx`."""
    if name in SPECS:
        from pipeline.runner.run import run_stage

        run_stage(stage(name), "content", ctx)
    elif name == "shards":
        from stages.preprocess import shards

        shards.run(ctx, ("content",))
    else:
        from pipeline.shards.indexed import Loader, Samples

        sum(1 for _ in Loader(Samples(ctx.shards, "content"), 16, 0).epoch())


def context(base: Path) -> Context:
    """The context of a run in the folder `base`."""
    return Context(profile.load("tiny"), cache=base / "cache", content=base / "in", style=base / "in")


def peak(name: str, base: Path) -> float:
    """The peak memory in MB of a process that runs one step."""
    done = subprocess.run([sys.executable, __file__, name, str(base)], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def cost(work: Callable[[], object]) -> float:
    """The processor seconds of the processes that `work` starts: the least of three runs."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def call(*words: object) -> None:
    """Run a command of hypernst."""
    subprocess.run([sys.executable, "-m", "stages.cli.main", *map(str, words)], check=True, capture_output=True)


def main() -> None:
    """Print the growth of memory, and the cost of commands without work."""
    with tempfile.TemporaryDirectory() as name:
        peaks: dict[str, list[float]] = {title: [] for title in STEPS}
        for count in (FEW, MANY):
            base = Path(name) / str(count)
            (base / "in").mkdir(parents=True)
            for i in range(count):
                (base / "in" / f"k{i:06d}.jpg").write_text(str(i))
            for title, what in STEPS.items():
                peaks[title].append(peak(what, base))
        print(f"| peak memory, MB | {FEW:,} images | {MANY:,} | growth |\n|---|---|---|---|")
        for title, (few, many) in peaks.items():
            print(f"| {title} | {few:.0f} | {many:.0f} | {many - few:.0f} |")
        print("\nGoal: a growth under 50 MB.\n")
        cache = context(base).file("content", "aladin")
        commands = {
            "`hypernst --help`": ("--help",),
            "`hypernst inspect aladin.h5`": ("inspect", cache),
            "`hypernst inspect --full`": ("inspect", cache, "--full"),
        }
        print(f"| command, {MANY:,} images cached | processor seconds |\n|---|---|")
        for title, words in commands.items():
            print(f"| {title} | {cost(partial(call, *words)):.2f} |")
        print(f"| packing shards, nothing to do | {cost(lambda: peak('shards', base)):.2f} |")
        print("\nGoals: inspect under 1 s; nothing to do within 1 s of `--help`.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        step(sys.argv[1], context(Path(sys.argv[2])))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    else:
        main()
