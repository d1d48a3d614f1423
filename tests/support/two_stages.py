"""Two small stages: one reads files, the other reads the cache of the first; and helpers to check their caches."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import profile
from pipeline.caches import reader as store
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.runner.run import Summary, run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.tools import explain

CALLS: list[list[str]] = []


def open_read(ctx: Context) -> Worker:
    """A worker that reads a number from each file; the environment's DELAY leaves time to kill the run."""
    delay = float(os.environ.get("DELAY", "0"))

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        CALLS.append([item.key for item in items])
        time.sleep(delay)
        out: list[Row | Reject] = []
        for item in items:
            text = item["source"].decode()
            out.append(
                {"image": item["source"] * 100, "value": float(text), "path": item.path}
                if text.isdigit()
                else Reject("not a number")
            )
        return out

    return work


def open_square(ctx: Context) -> Worker:
    """A worker that squares the numbers of the first stage."""

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        CALLS.append([item.key for item in items])
        return [{"square": np.full(3, item["images.value"] ** 2)} for item in items]

    return work


READ = StageSpec(
    name="read",
    output="images",
    open=open_read,
    batch=3,
    params={"a": 1},
    weights={"net": "aa"},
    columns={"image": Column("bytes"), "value": Column("f4"), "path": Column("label")},
)
SQUARE = StageSpec(
    name="square",
    output="latents",
    open=open_square,
    parents={"images": ("value",)},
    producers={"images": "align"},
    columns={"square": Column("f4", (3,))},
)


def make(folder: Path, count: int) -> None:
    """Write `count` files with one number each."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"n{i:03d}.jpg").write_text(str(i))


def computed() -> int:
    """How many items the workers were given since the last call."""
    total = sum(map(len, CALLS))
    CALLS.clear()
    return total


def contents(path: Path) -> tuple[dict, list]:
    """The entries and the rows of a cache file."""
    with store.Cache(path) as cache:
        return cache.entries(), cache.rows(cache.keys(), list(cache.columns))


def run(stage: StageSpec, ctx: Context) -> Summary:
    """Run a stage on the content collection."""
    return run_stage(stage, "content", ctx)


def context(base: Path) -> Context:
    """A new cache beside a folder of ten files; no call is counted yet."""
    make(base / "in", 10)
    CALLS.clear()
    return Context(profile.load("tiny"), cache=base / "cache", content=base / "in", style=base / "in")


def explained(stage: StageSpec, ctx: Context) -> str:
    """What `explain` says of the stage's content."""
    return explain.report([explain.explain_step(stage, "content", ctx)])
