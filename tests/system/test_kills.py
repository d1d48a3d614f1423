"""Runs that are killed at random moments leave nothing behind: one clean run ends as if there had been none."""

import dataclasses
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from pipeline import images, profile
from pipeline.caches import volumes
from pipeline.caches.schema import Row
from pipeline.context import COLLECTIONS, Context
from pipeline.runner import compute
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.preprocess import chain, shards
from stages.tools import verify

pytestmark = pytest.mark.weights  # their sha256 are in every recipe
ROOT = Path(chain.__file__).parents[2]
PAUSE = 0.001  # seconds a row: what a network would take, so that kills fall everywhere


def context(base: Path, name: str) -> Context:
    return Context(profile.load("portable"), cache=base / name, content=base / "content", style=base / "style")


def every_stage(ctx: Context, full: int = volumes.FULL) -> None:
    """All preprocessing stages with their own specs, the networks replaced by noise that the key decides.

    With volumes of few rows the pictures come in four times, and one more run removes the volumes that were merged.
    Those that came in before a kill do so once: how rows lie in volumes follows from what was added at a time.
    """
    cv2.setNumThreads(1)
    grows, over = full < volumes.FULL, ctx.cache.with_suffix(".over")
    over.mkdir(exist_ok=True)
    limits = (full, full + 2, 3 * full, None, None) if grows else (None,)
    with mock.patch.multiple(volumes, FULL=full, ONE_FILE=full // 2, FAN=3 if grows else volumes.FAN):
        for number in range(len([*over.iterdir()]), len(limits)):
            for name in chain.CACHED:
                few = dataclasses.replace(ctx, limit=limits[number] if name == "align" else None)
                for collection in COLLECTIONS:
                    for step in chain.steps(name, collection, few):
                        run_stage(dataclasses.replace(step, open=Noise(step)), collection, few)
            (over / str(number)).touch()
    shards.run(ctx)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Opens a worker whose rows are noise; some pictures are rejected, at a stage each."""

    step: StageSpec

    def __call__(self, ctx: Context) -> Worker:
        def row(key: str) -> Row | Reject:
            seed = zlib.crc32(f"{self.step.name} {key}".encode())
            if seed % 29 == 0:
                return Reject(f"no luck with {seed}")
            rng = np.random.default_rng(seed)
            picture = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(32, 0).repeat(32, 1)
            other = {"bytes": images.encode(picture, ".jpg"), "text": key}
            return {name: other.get(c.dtype, rng.integers(0, 3, c.shape)) for name, c in self.step.columns.items()}

        def work(items: Sequence[Item]) -> list[Row | Reject]:
            time.sleep(PAUSE * len(items))
            return [row(item.key) for item in items]

        return work


def child(base: str, full: int) -> None:
    """What is killed: says when it begins and when it has ended."""
    compute.PART_SECONDS = 0.03
    print("begins", flush=True)
    every_stage(context(Path(base), "killed"), full)
    print("ended", flush=True)


def files(ctx: Context) -> dict[str, bytes]:
    left_out = (".lock", ".verified.json")
    return {
        str(path.relative_to(ctx.cache)): path.read_bytes() if path.is_file() else b"a folder"
        for path in ctx.cache.rglob("*")
        if path.name not in left_out
    }


@pytest.mark.parametrize(
    ("pictures", "kills", "full"),
    [
        (16, 4, 3),
        pytest.param(300, 100, 20, marks=pytest.mark.slow),
        pytest.param(300, 100, volumes.FULL, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_one_clean_run_ends_the_same(
    tmp_path: Path, pictures: int, kills: int, full: int
) -> None:
    for collection in COLLECTIONS:
        (tmp_path / collection).mkdir()
        for i in range(pictures // 2):
            (tmp_path / collection / f"{collection}{i:04d}.jpg").write_text(str(i))
    whole, killed = context(tmp_path, "whole"), context(tmp_path, "killed")
    start = time.monotonic()
    every_stage(whole, full)
    seconds, expected = time.monotonic() - start, files(whole)
    moments = random.Random(kills)
    hit = finished = 0
    command = [sys.executable, "-c", f"from tests.system.test_kills import child; child({str(tmp_path)!r}, {full})"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    while hit < kills:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"begins\n"
        try:
            said, told = process.communicate(timeout=moments.uniform(0, min(seconds / 4, 2)))
        except subprocess.TimeoutExpired:
            process.kill()
            hit += 1
            process.communicate()
            continue
        assert said == b"ended\n", told.decode()[-2000:]
        finished += 1
        assert files(killed) == expected
        subprocess.run(["rm", "-r", str(killed.cache), str(killed.cache.with_suffix(".over"))], check=True)
    print(f"{hit} kills, {finished} runs that came through, {seconds:.1f} s a run")
    every_stage(killed, full)
    assert [*killed.cache.rglob("*.volumes")] or full == volumes.FULL
    assert verify.run(killed, repair=True) == 0
    assert files(killed) == expected


def test_of_two_runs_at_once_the_second_stops_and_names_the_first(tmp_path: Path) -> None:
    for collection in COLLECTIONS:
        (tmp_path / collection).mkdir()
        (tmp_path / collection / "a.jpg").write_text(collection)
    hold = (
        "import sys; from pathlib import Path; from pipeline.locks import lock\n"
        "with lock(Path(sys.argv[1]), 'align (content)'): print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", hold, str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout and first.stdout.readline() == b"held\n"
    places = [f"--{name}={tmp_path / name}" for name in COLLECTIONS]
    second = [sys.executable, "-m", "stages.cli.main", "align", f"--cache={tmp_path / 'killed'}", *places]
    try:
        stopped = subprocess.run(second, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert stopped.returncode == 1
        assert f"in use by stage align (content) (pid {first.pid} on " in stopped.stderr
    finally:
        first.kill()
        first.communicate()
    assert b"align (content)" in (tmp_path / "killed" / ".lock").read_bytes(), "left by the killed run"
    every_stage(context(tmp_path, "killed"))
