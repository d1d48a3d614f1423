"""Who may read what is written is what the umask says, whichever library writes it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline import files, profile
from pipeline.caches import merge
from pipeline.caches.schema import Layout
from pipeline.context import Context
from pipeline.training import checkpoint
from pipeline.training.board import Board
from stages.preprocess import shards
from stages.weights_import import importer
from stages.weights_import.identify import Part
from tests.support.caches import fill


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


def library(path: Path) -> None:
    """A library that thinks of its user alone."""
    with files.replacing(path) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))


def folder(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "inside").write_bytes(b"x")


def imported(path: Path) -> None:
    importer._write(Part("toy", {"a": torch.zeros(2)}), path, {})


def log(path: Path) -> None:
    with files.LineLog(path) as lines:
        lines.add({"a": 1})


def board(path: Path) -> None:
    with Board(path, 0) as curves:
        curves.curves({"a": 1.0}, 1)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: files.write_atomic(path, b"x"),
    "a library": library,
    "a folder": folder,
    "checkpoint": lambda path: checkpoint.save(path, {"a": torch.zeros(2)}, {}),
    "imported weights": imported,
    "a cache": lambda path: merge.compact(path, [], {}, Layout({}, 1, {})),
    "a mapped array": lambda path: files.new_array(path, "u1", (3,)),
    "a log": log,
    "a board": board,
}


@pytest.mark.parametrize("name", WRITERS)
def test_modes_follow_the_umask(tmp_path: Path, umask: int, name: str) -> None:
    for again in ("x", "x", "x") if name != "a folder" else ("x",):
        WRITERS[name](tmp_path / again)
        for path in tmp_path.rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_all_that_stages_write(tmp_path: Path, umask: int) -> None:
    ctx = Context(profile.load("tiny"), tmp_path / "cache", tmp_path / "c", tmp_path / "s")
    for collection in ("content", "style"):
        fill(ctx, collection, 2)
    shards.run(ctx)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
