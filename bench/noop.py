"""The cost of finding that there is no work: two collections of 5,000 images each, cached and packed.

The caches have the recipes of the portable profile, but their rows are filled in without its networks. The table has
processor seconds and wall-clock seconds; other work on the machine slows the latter.
"""

import dataclasses
import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from pipeline import images, profile
from pipeline.caches.schema import Row
from pipeline.context import COLLECTIONS, Context
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, StageSpec, Worker
from stages.preprocess import chain, shards

COUNT, ROUNDS = 5000, 5


def flat(stage: StageSpec, ctx: Context) -> Worker:
    """A worker whose rows are all the same."""
    image = images.encode(np.full((ctx.profile.align.size,) * 2 + (3,), 99, np.uint8), ".jpg")
    other = {"bytes": image, "text": "", "label": ""}
    row: Row = {name: other.get(c.dtype, np.zeros(c.shape)) for name, c in stage.columns.items()}

    def work(items: Sequence[Item]) -> list[Row]:
        return [row] * len(items)

    return work


def fill(ctx: Context) -> None:
    """Write source files, caches and shards of COUNT images in each collection."""
    for collection in COLLECTIONS:
        ctx.source(collection).mkdir(parents=True)
        for i in range(COUNT):
            (ctx.source(collection) / f"{collection}{i:05d}.jpg").write_text(str(i))
        for stage in (step for name in chain.CACHED for step in chain.steps(name, collection, ctx)):
            quick = dataclasses.replace(stage, open=functools.partial(flat, stage), batch=64)
            run_stage(quick, collection, ctx)
    shards.run(ctx)


def cost(words: Sequence[str]) -> tuple[float, float]:
    """Processor seconds and wall-clock seconds of a command: the medians of ROUNDS runs, after one warm-up."""
    times = []
    for _ in range(ROUNDS + 1):
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((used, time.monotonic() - start))
    return median(used for used, _ in times[1:]), median(clock for _, clock in times[1:])


def main() -> None:
    """Print the cost of the commands, and what another number of patches would run."""
    cv2.setNumThreads(1)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a command that runs twice finds itself compiled
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        ctx = Context(profile.load("portable"), cache=base / "cache", content=base / "content", style=base / "style")
        fill(ctx)
        bin = base / "venv" / "bin"
        bin.mkdir(parents=True)
        (base / "venv" / ".hypernst-ready").touch()
        (bin / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin / "hypernst").write_text(f"#!{sys.executable}\nfrom stages.cli.main import main\n\nmain()\n")
        for command in bin.iterdir():
            command.chmod(0o755)
        os.environ["PYTHONPYCACHEPREFIX"] = str(base / "compiled")
        places = [f"CACHE={ctx.cache}", f"CONTENT={ctx.content}", f"STYLE={ctx.style}", f"VENV={base / 'venv'}"]
        commands = {
            "`hypernst --help`": [str(bin / "hypernst"), "--help"],
            "`make shards`": ["make", "--silent", "shards", *places],
            "`hypernst shards`": [
                str(bin / "hypernst"),
                "shards",
                "--cache",
                str(ctx.cache),
                "--content",
                str(ctx.content),
                "--style",
                str(ctx.style),
            ],
        }
        print(f"| nothing to do, {2 * COUNT:,} images cached | processor seconds | clock |\n|---|---|---|")
        for title, words in commands.items():
            used, clock = cost(words)
            print(f"| {title} | {used:.2f} | {clock:.2f} |", flush=True)
        fewer = dataclasses.replace(ctx.profile.aladin, patches=ctx.profile.aladin.patches - 1)
        stages = chain.unfinished(dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, aladin=fewer)))
        print(f"\nGoal: `make shards` within 1 s of `--help`. With one patch fewer it would run: {', '.join(stages)}.")


if __name__ == "__main__":
    main()
