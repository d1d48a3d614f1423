"""A cache that grows: volumes are added, never changed, and read as one; few are left; readers are not disturbed."""

import dataclasses
import errno
import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.caches import volumes
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner import compute
from tests.support.two_stages import READ, SQUARE, computed, contents, context, explained, run


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A folder of ten files; volumes of at most eight rows, and of one file only up to four."""
    monkeypatch.setattr(volumes, "FULL", 8)
    monkeypatch.setattr(volumes, "ONE_FILE", 4)
    monkeypatch.setattr(volumes, "FAN", 3)
    return context(tmp_path)


def add(ctx: Context, *numbers: int) -> None:
    for number in numbers:
        (ctx.content / f"n{number:03d}.jpg").write_text(str(number))


def held(path: Path) -> dict[str, tuple[int, bytes]]:
    """The volumes that a cache file lists, by name: inode and bytes."""
    with Cache(path) as cache:
        return {file.name: (file.stat().st_ino, file.read_bytes()) for file in cache.files}


def rows(path: Path) -> tuple[dict, str, list[str]]:
    """What a cache holds, in whatever order: rows by key, digest, rejects."""
    with Cache(path) as cache:
        keys = sorted(cache.keys())
        values = [sorted((name, str(value)) for name, value in row.items()) for row in cache.rows(keys, cache.columns)]
        entries = {key: entry[2:] for key, entry in cache.entries().items()}
        return dict(zip(keys, values, strict=True)) | entries, cache.rows_digest(), sorted(cache.reasons())


def test_additions_leave_volumes_as_they_are_and_any_program_sees_whole_datasets(ctx: Context, tmp_path: Path) -> None:
    (ctx.content / "n004.jpg").write_text("four")
    run(READ, ctx), run(SQUARE, ctx)
    path = ctx.file("content", "images")
    before = held(path)
    assert list(before) == ["000001.h5", "000002.h5"], "eight of ten, and the rest"
    add(ctx, 500, 5)
    (ctx.content / "a.jpg").write_text("no")
    computed()
    assert run(READ, ctx).computed == computed() == 2 and run(SQUARE, ctx).computed == 1
    after = held(path)
    assert before.items() < after.items() and len(after) == 3
    whole = dataclasses.replace(ctx, cache=tmp_path / "whole")
    run(READ, whole), run(SQUARE, whole)
    for name in ("images", "latents"):
        assert rows(ctx.file("content", name)) == rows(whole.file("content", name))
    with h5py.File(path, locking=False) as file, Cache(path) as cache:
        keys = [key.decode() for key in file["key"]]
        assert keys == cache.keys() and len(keys) == 10 and "n500" in keys and file["value"][keys.index("n500")] == 500
        assert file["image"][keys.index("n003")].tobytes() == b"3" * 100
        assert file["path"].asstr()[:].tolist() == [f"{key}.jpg" for key in keys]
        assert sorted(file["rejects/key"].asstr()) == ["a", "n004"]
        assert cache.block("value", 5, 10).tolist() == file["value"][5:10].tolist()
        assert [e.row for k, e in cache.entries().items() if k == "n500"] == [keys.index("n500")]
    assert "nothing to compute" in explained(READ, ctx) and run(READ, ctx).computed == 0


@pytest.mark.parametrize("linked", [True, False])
def test_a_plain_file_becomes_the_first_volume(ctx: Context, linked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FULL", 100)
    run(READ, ctx)
    path = ctx.file("content", "images")
    before, inode = path.read_bytes(), path.stat().st_ino
    if not linked:

        def link(*_: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", link)
    add(ctx, 500)
    run(READ, ctx)
    first = held(path)["000001.h5"]
    assert first[1] == before and (first[0] == inode) == linked


@pytest.mark.parametrize("change", ["another content", "gone", "renamed"])
def test_only_the_volume_of_a_changed_row_is_written_anew(ctx: Context, change: str) -> None:
    run(READ, ctx)
    before = held(ctx.file("content", "images"))
    file = ctx.content / "n001.jpg"
    if change == "another content":
        file.write_text("77")
    elif change == "gone":
        file.unlink()
    else:
        file.rename(ctx.content / "m001.jpg")
    computed()
    run(READ, ctx)
    assert computed() == (change == "another content")
    after = held(ctx.file("content", "images"))
    assert after["000002.h5"] == before["000002.h5"] and "000001.h5" not in after
    assert len(rows(ctx.file("content", "images"))[0]) == 10 - (change == "gone")


def test_another_recipe_and_fewer_files_leave_one_plain_file(ctx: Context) -> None:
    run(READ, ctx)
    for number in range(4, 10):
        (ctx.content / f"n{number:03d}.jpg").unlink()
    assert run(dataclasses.replace(READ, version=2), ctx).computed == 4
    path = ctx.file("content", "images")
    with Cache(path) as cache:
        assert cache.files == [path] and len(cache) == 4
    run(dataclasses.replace(READ, version=2), ctx)
    assert not volumes.folder(path).exists()


def test_the_bytes_do_not_depend_on_the_parts(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(ctx, cache=tmp_path / "pieces")
    for more in ((), (100, 101), (3_000, 40)):
        add(ctx, *more)
        for own, seconds in ((ctx, 20.0), (other, 0.0)):
            monkeypatch.setattr(compute, "PART_SECONDS", seconds)
            run(READ, own), run(SQUARE, own)
    for name in ("images", "latents"):
        one, two = (own.file("content", name) for own in (ctx, other))
        assert one.read_bytes() == two.read_bytes()
        assert [data for _, data in held(one).values()] == [data for _, data in held(two).values()]


def test_who_has_it_open_reads_on_while_volumes_are_merged(ctx: Context) -> None:
    run(READ, ctx)
    path = ctx.file("content", "images")
    with Cache(path) as cache, h5py.File(path, locking=False) as file:
        keys = cache.keys()
        for number in range(100, 106):  # each a volume, which are merged
            add(ctx, number)
            before = set(held(path))
            run(READ, ctx)
            if not before <= set(held(path)):
                break
        assert not before <= set(held(path)), "merged"
        assert [row["value"] for row in cache.rows(keys, ["value"])] == file["value"][:].tolist() == list(range(10))
    assert len(volumes.there(path)) > len(held(path))
    run(READ, ctx)
    assert len(volumes.there(path)) == len(held(path)), "the next run removes them"


def test_a_cache_file_that_was_lost_is_made_of_its_volumes(ctx: Context) -> None:
    run(READ, ctx)
    path = ctx.file("content", "images")
    before = rows(path)
    path.unlink()
    computed()
    assert run(READ, ctx).cached == 10 and computed() == 0 and rows(path) == before


def test_volumes_that_are_not_the_listed_ones_are_refused(ctx: Context) -> None:
    run(READ, ctx)
    path = ctx.file("content", "images")
    first, second = volumes.there(path)
    first.rename(first.with_suffix(".kept"))
    with Cache(path) as cache:
        assert cache.rows(["n009", "n008"], ["value"]) == [{"value": 9}, {"value": 8}], "the other one is not needed"
        with pytest.raises(UserError, match=r"000001.h5: missing, but images.h5 lists it"):
            cache.rows(["n009", "n001"], ["value"])
    first.with_suffix(".kept").rename(first)
    second.rename(second.with_suffix(".kept"))
    with pytest.raises(UserError, match=r"000002.h5: missing, but images.h5 lists it"):
        contents(path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match=r"000002.h5: not the one that images.h5 lists"):
        run(READ, ctx)


@pytest.mark.parametrize("each", [1, 100, 1000])
def test_additions_cost_about_what_they_add_and_few_volumes_are_left(each: int) -> None:
    sizes, number, written, added = dict[int, int](), 0, 0, 0
    for _ in range(50_000 // each):
        merged = volumes.to_merge(sizes, each)
        new = each + sum(sizes.pop(n) for n in merged)
        added, written = added + each, written + new
        if sum(sizes.values()) + new > volumes.ONE_FILE or sizes:
            assert len(sizes) <= 3 * volumes.FAN + added // volumes.FULL
        for size in [volumes.FULL] * (new // volumes.FULL) + [new % volumes.FULL] * bool(new % volumes.FULL):
            sizes[number := number + 1] = size
        assert sum(sizes.values()) == added and max(sizes.values()) <= volumes.FULL
    start = volumes.ONE_FILE**2 / 2 / each if each < volumes.ONE_FILE else 0  # until then all is rewritten
    assert written - start < (20 if each == 1 else 4) * added, written / added


def test_what_is_merged_does_not_depend_on_their_order() -> None:
    dice = random.Random(0)
    for _ in range(100):
        sizes = {n: dice.choice((1, 50, 129, 1000, 1025, 5000, 8192)) for n in range(dice.randrange(30))}
        found = volumes.to_merge(sizes, 10)
        assert found == volumes.to_merge(dict(reversed(sizes.items())), 10)
        assert np.all([sizes[n] < volumes.FULL for n in found]) or sum(sizes.values()) < volumes.ONE_FILE
