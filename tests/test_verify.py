"""Damage is found and named, and repair costs no more than what was damaged."""

import dataclasses
import os
from pathlib import Path

import h5py
import pytest

from pipeline import profile, store, verify
from pipeline.context import Context
from pipeline.errors import Fault
from stages import shards
from tests.caches import fill

COUNT = 20


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    tiny = profile.load("tiny")
    ctx = Context(tiny, cache=tmp_path / "cache", content=tmp_path / "content", style=tmp_path / "style")
    fill(ctx, "content", COUNT)
    fill(ctx, "style", 3)
    shards.run(ctx)
    return ctx


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))


def chunk(path: Path, name: str) -> int:
    """Where in the file the first chunk of a dataset lies."""
    with h5py.File(path) as f:
        return f[name].id.get_chunk_info(0).byte_offset


def test_sound_caches_pass(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    assert verify.run(ctx) == 0
    assert "0 problems; all checksums hold" in capsys.readouterr().err


@pytest.mark.parametrize("name, column", [("latents", "latent"), ("masks", "region"), ("aladin", "code")])
def test_a_flipped_bit_is_found_and_repaired(ctx: Context, name: str, column: str,
                                             capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", name)
    flip(path, chunk(path, column) + 5)
    assert verify.run(ctx) == 1
    told = capsys.readouterr().err
    assert f"{path}: dataset {column} is damaged at: content0000" in told
    assert verify.run(ctx, repair=True) == 0
    assert len(store.keys(path)) < COUNT
    fill(ctx, "content", COUNT)
    assert len(store.keys(path)) == COUNT and verify.run(ctx) == 0


def test_a_flipped_bit_in_a_picture_is_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "images")
    picture = store.read_rows(path, ["content0007"], ["image"])[0]["image"]
    flip(path, path.read_bytes().index(picture) + 100)
    with pytest.raises(Fault, match="key 'content0007' does not have its digest"):
        store.read_rows(path, ["content0007"], ["image"])
    assert verify.run(ctx, repair=True) == 0
    assert "digest differs) is damaged at: content0007\n" in capsys.readouterr().err
    fill(ctx, "content", COUNT)
    assert "images content: 20 inputs = 20 cached + 0 rejected (1 computed now)" in capsys.readouterr().err
    assert store.read_rows(path, ["content0007"], ["image"])[0]["image"] == picture
    assert verify.run(ctx) == 0


def test_a_truncated_cache_is_removed(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("style", "images")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(Fault, match="verify --repair"):
        store.keys(path)
    (ctx.cache / "style/.images.h5.1.tmp").touch()
    assert verify.run(ctx, repair=True) == 0
    assert "cannot be opened" in capsys.readouterr().err
    assert not path.exists() and not list(ctx.cache.rglob("*.tmp"))
    assert len(store.keys(ctx.file("style", "masks"))) == 3, "they hold again once images are back"
    fill(ctx, "style", 3)
    assert "masks style: 3 inputs = 3 cached + 0 rejected (0 computed now)" in capsys.readouterr().err
    assert verify.run(ctx) == 0


def test_caches_that_differ_are_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "images")
    verify._drop(path, {"content0003"})
    assert verify.run(ctx) == 1
    assert "masks.h5: was made from other rows than images.h5 holds, at: content0003\n" in capsys.readouterr().err


def test_a_damaged_shard_is_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    tar = min(ctx.shards.glob("content-train-*.tar"))
    whole = tar.read_bytes()
    flip(tar, 700)
    assert verify.run(ctx) == 1
    assert f"{tar}: its sha256" in capsys.readouterr().err
    assert verify.run(ctx, repair=True) == 0
    shards.run(ctx)
    assert tar.read_bytes() == whole and verify.run(ctx) == 0


def test_limits_and_rejects_reach_the_shards(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    verify._drop(ctx.file("content", "masks"), {"content0001"})
    assert "parents.content/masks" in shards.explain(ctx)
    shards.run(ctx)
    assert "content: 20 images = 19 packed + 1 rejected earlier (19 packed now)" in capsys.readouterr().err
    shards.run(dataclasses.replace(ctx, limit=2))
    assert "content: 3 images = 2 packed" in capsys.readouterr().err
