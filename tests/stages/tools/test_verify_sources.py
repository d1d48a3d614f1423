"""verify knows the user's files, labels, and the caches of measured portraits."""

import dataclasses
import os
from pathlib import Path

import h5py
import pytest

from pipeline.caches import reader
from pipeline.context import Context
from stages.preprocess import shards
from stages.tools import verify
from tests.stages.tools.test_verify import chunk, flip
from tests.support.caches import fill, packed

COUNT = 20


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return packed(tmp_path, COUNT, 3)


def test_swapped_files_are_noticed_and_unread_ones_told(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    assert verify.run(ctx) == 0
    told = capsys.readouterr().err
    assert f"{ctx.content}: {COUNT} files are taken to be unchanged" in told and "verify --sources` reads them" in told
    assert verify.run(ctx, sources=True) == 0 and "taken to be" not in capsys.readouterr().err
    first, second = (ctx.content / f"content{i:04d}.jpg" for i in (3, 4))
    times = [path.stat().st_mtime_ns for path in (first, second)]
    for path, text, time in zip((first, second), ("4", "3"), times, strict=True):
        path.write_text(text)
        os.utime(path, ns=(time, time))
    for sources in (False, True):
        assert verify.run(ctx, sources=sources) == 1
        told = capsys.readouterr().err
        assert (
            f"was made from other files than {ctx.content} holds; run `hypernst align`: content0003, content00" in told
        )
    fill(ctx, "content", 3)
    shards.run(ctx)
    assert verify.run(ctx) == 0
    assert verify.run(dataclasses.replace(ctx, content=ctx.cache / "gone")) == 0
    assert "content: the user's images were not compared with the cache" in capsys.readouterr().err


def test_a_changed_label_is_found_and_repaired(ctx: Context) -> None:
    with h5py.File(ctx.file("content", "images"), "r+") as f:
        f["path"][5] = "another.jpg"
    found = [(p.path.stem, p.text, p.keys) for p in verify.check(ctx)]
    assert found == [("images", "dataset path is damaged at", ["content0005"])]
    verify.remove(ctx, verify.check(ctx))
    fill(ctx, "content", COUNT)
    assert verify.run(ctx) == 0


def test_the_caches_of_measured_portraits_are_checked_as_well(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    measured = dataclasses.replace(ctx, cache=ctx.cache / "quality")
    fill(measured, "content", COUNT)
    assert verify.run(ctx) == 0
    path = measured.file("content", "latents")
    flip(path, chunk(path, "latent") + 5)
    before = reader.keys(ctx.file("content", "latents"))
    assert verify.run(ctx) == 1 and f"{path}: dataset latent is damaged" in capsys.readouterr().err
    assert verify.run(ctx, repair=True) == 1
    told = capsys.readouterr().err
    assert "problems left; `hypernst quality` recomputes what it needs" in told
    assert reader.keys(ctx.file("content", "latents")) == before
    fill(measured, "content", COUNT)
    assert verify.run(ctx) == 0
