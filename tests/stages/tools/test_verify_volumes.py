"""verify on caches with volumes: a damaged one alone is lost; what was found sound is not read again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from pipeline import ours, profile
from pipeline.caches import volumes
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.verification import processes, record
from stages.preprocess import shards
from stages.tools import clean, inspect, verify
from tests.stages.tools.test_verify import chunk, flip, snapshot
from tests.support.caches import fill

COUNT = 20


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(volumes, "FULL", 8)
    monkeypatch.setattr(volumes, "ONE_FILE", 4)
    ctx = Context(profile.load("tiny"), tmp_path / "cache", tmp_path / "content", tmp_path / "style")
    for count in (6, COUNT):
        fill(ctx, "content", count)
    fill(ctx, "style", 3)
    shards.run(ctx)
    return ctx


def test_sound_volumes_pass_and_are_ours(ctx: Context) -> None:
    assert verify.check(ctx) == []
    assert {path for path in ctx.cache.rglob("*") if path.is_file()} == set(ours.files(ctx.cache))
    with Cache(ctx.file("content", "masks")) as cache:
        assert [one.rows for one in cache.listed] == [6, 8, 6]
    told = inspect.run(ctx.file("content", "masks"))
    assert "20 rows, 0 rejects" in told and "in 3 volumes" in told
    assert "6 rows" in inspect.run(volumes.file(ctx.file("content", "masks"), 3), key="content0015")
    clean.run(ctx.cache)
    assert not ctx.cache.exists() or not list(ctx.cache.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "swapped", "keys"])
def test_a_damaged_volume_alone_is_lost(ctx: Context, damage: str, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "latents")
    with Cache(path) as cache:
        first, bad, last = cache.files
    before, spared = snapshot(ctx), [(file.stat().st_ino, file.read_bytes()) for file in (first, last)]
    if damage == "cut":
        os.truncate(bad, 3000)
    elif damage == "flipped":
        flip(bad, chunk(bad, "latent") + 5)
    elif damage == "keys":
        flip(bad, chunk(bad, "key") + 5)
    elif damage == "gone":
        bad.unlink()
    else:
        bad.write_bytes(first.read_bytes())
    problems = verify.check(ctx)
    assert {p.path for p in problems if p.fatal} == {bad}
    verify.remove(ctx, problems)
    assert [(file.stat().st_ino, file.read_bytes()) for file in (first, last)] == spared
    if damage in ("cut", "swapped"):
        assert bad.with_name("000002.h5.bad").exists()
    capsys.readouterr()
    fill(ctx, "content", COUNT)
    assert "latents content: 20 inputs = 20 cached + 0 rejected (8 computed now)" in capsys.readouterr().err
    after = {name: held for name, held in snapshot(ctx).items() if ".volumes" not in name and name != str(path)}
    assert verify.check(ctx) == [] and after == {name: before[name] for name in after}
    with Cache(path) as cache:
        entries = {key: entry[2:] for key, entry in cache.entries().items()}
    assert entries == {key: entry[2:] for key, entry in before[str(path)][1].items()}  # type: ignore[index]


@pytest.mark.parametrize("damage", ["cut", "digest", "shown"])
def test_a_damaged_cache_file_loses_no_row(ctx: Context, damage: str, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "latents")
    if damage == "cut":
        os.truncate(path, 3000)
    else:
        with h5py.File(path, "r+", locking=False) as f:
            if damage == "digest":
                f.attrs["rows"] = f.attrs["rows"][:-1] + b"x"
            else:
                layout = h5py.VirtualLayout((COUNT, 4, 16), "f4")
                del f["latent"]
                f.create_virtual_dataset("latent", layout)
    problems = verify.check(ctx)
    assert {p.path for p in problems if p.fatal} == {path}
    verify.remove(ctx, problems)
    capsys.readouterr()
    fill(ctx, "content", COUNT)
    assert "latents content: 20 inputs = 20 cached + 0 rejected (0 computed now)" in capsys.readouterr().err
    assert verify.check(ctx) == []


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that `verify` reads whole; all count as old enough to be recorded."""
    monkeypatch.setattr(record, "SETTLED", -60)
    read: list[Path] = []
    whole = processes.over_processes

    def noted(check: object, files: list[Path]) -> object:
        read.extend(files)
        return whole(check, files)  # type: ignore[arg-type]

    monkeypatch.setattr("stages.tools.verify_checks.over_processes", noted)
    return read


def test_what_was_found_sound_is_not_read_again(ctx: Context, reads: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert verify.run(ctx) == 0
    everything = set(reads)
    kept = json.loads((ctx.cache / ours.VERIFIED).read_bytes())["verified"]
    assert {ctx.cache / name for name in kept} == everything and len(everything) > 12
    one = kept["content/latents.volumes/000001.h5"]
    with Cache(ctx.file("content", "latents")) as cache:
        assert one["digest"] == cache.listed[0].digest.hex() and one["checked"].startswith("20")
    reads.clear()
    assert verify.run(ctx) == 0 and not reads
    told = capsys.readouterr().err
    assert f"{len(kept)} files, " in told and "`hypernst verify --all` reads them" in told
    path = volumes.file(ctx.file("content", "latents"), 2)
    flip(path, chunk(path, "latent") + 5)
    for _ in range(2):
        reads.clear()
        assert verify.run(ctx) == 1 and reads == [path]
    verify.remove(ctx, verify.check(ctx))
    fill(ctx, "content", COUNT)
    reads.clear()
    assert verify.run(ctx) == 0 and len(reads) < 4
    reads.clear()
    assert verify.run(ctx, everything=True) == 0 and len(reads) > 12


def test_a_file_that_just_changed_is_not_recorded(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "SETTLED", 3600)
    verify.run(ctx)
    assert not (ctx.cache / ours.VERIFIED).exists()


def test_many_bytes_are_read_by_several_processes(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MANY_BYTES", 0)
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    path = volumes.file(ctx.file("content", "latents"), 2)
    flip(path, chunk(path, "latent") + 5)
    [problem] = [problem for problem in verify.check(ctx) if problem.fatal]
    assert problem.path == path and problem.keys[0] == "content0006"
