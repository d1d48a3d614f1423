"""Rows follow the content of the user's files: not their names, their folder or their times."""

import dataclasses
import os
from pathlib import Path

import pytest

from pipeline.caches import reader as store
from pipeline.context import Context
from stages.tools import verify
from tests.support.two_stages import READ, SQUARE, computed, contents, context, explained, make, run


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return context(tmp_path)


def same(ctx: Context, other: Context) -> bool:
    """Whether both contexts' caches hold the same rows under the same keys, however they came to be."""
    found = []
    for own in (ctx, other):
        run(READ, own)
        run(SQUARE, own)
        for name in ("images", "latents"):
            entries, rows = contents(own.file("content", name))
            found.append(({key: entry[2:] for key, entry in entries.items()}, str(rows)))
        assert verify.check(own) == []
    return found[:2] == found[2:]


def test_renamed_files_rename_rows_and_recompute_nothing(ctx: Context, tmp_path: Path) -> None:
    (ctx.content / "n004.jpg").write_text("four")
    run(READ, ctx)
    run(SQUARE, ctx)
    computed()
    for name in ("n001", "n004"):
        (ctx.content / f"{name}.jpg").rename(ctx.content / f"Renamed {name}.jpg")
    swapped = [(ctx.content / f"{name}.jpg").read_text() for name in ("n002", "n003")]
    for name, text in zip(("n003", "n002"), swapped, strict=True):
        (ctx.content / f"{name}.jpg").write_text(text)
    message = explained(READ, ctx)
    assert "nothing to compute\n  4 rows renamed: the same content under another name" in message
    assert "stale" not in message and "new" not in message
    assert str(run(READ, ctx)) == "read content: 10 inputs = 9 cached + 1 rejected (0 computed now, 4 renamed)"
    assert "3 rows renamed" in explained(SQUARE, ctx)
    assert (run(SQUARE, ctx).renamed, run(READ, ctx).renamed, computed()) == (3, 0, 0)
    moved = dataclasses.replace(ctx, content=ctx.content.rename(tmp_path / "moved"))
    assert (run(READ, moved).computed, run(SQUARE, moved).computed) == (0, 0)
    assert same(moved, dataclasses.replace(moved, cache=tmp_path / "fresh"))
    paths = store.read_rows(ctx.file("content", "images"), store.keys(ctx.file("content", "images")), ["path"])
    assert "Renamed n001.jpg" in [row["path"] for row in paths]


def test_another_folder_of_equal_names_sizes_and_times_is_another(ctx: Context, tmp_path: Path) -> None:
    run(READ, ctx)
    computed()
    other = dataclasses.replace(ctx, content=tmp_path / "other")
    make(other.content, 10)
    (other.content / "n001.jpg").write_text("z")
    (other.content / "n007.jpg").write_text("x")
    for path in ctx.content.iterdir():
        state = path.stat()
        os.utime(other.content / path.name, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert "2 rows stale: input changed" in explained(READ, other)
    run(READ, other)
    assert same(other, dataclasses.replace(other, cache=tmp_path / "fresh"))
    state = (other.content / "n005.jpg").stat()
    (other.content / "n005.jpg").write_text("y")  # in place, with the former time
    os.utime(other.content / "n005.jpg", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run(READ, other).computed == 1
    link = dataclasses.replace(other, content=tmp_path / "link")
    link.content.symlink_to(other.content)
    assert run(READ, link).computed == 0
