"""The user's files may change, come and go while a run reads them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.caches import reader as store
from pipeline.caches.schema import Row
from pipeline.context import Context
from pipeline.runner.spec import Item, Reject, Worker
from pipeline.sources import scan
from tests.support.two_stages import READ, context, make, open_read, run


def test_a_run_walks_once_takes_changes_of_what_it_read_and_leaves_new_files_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(tmp_path)
    walks: list[Path] = []
    walk = scan._walk
    monkeypatch.setattr(scan, "_walk", lambda folder, *rest: walks.append(folder) or walk(folder, *rest))
    assert run(READ, ctx).computed == 10 and len(walks) == 1
    after: dict[str, str | None] = {}

    def open_meddled(ctx: Context) -> Worker:
        work = open_read(ctx)

        def meddle(items: Sequence[Item]) -> list[Row | Reject]:
            rows = list(work(items))
            while after:
                name, text = after.popitem()
                (ctx.content / name).write_text(text) if text else (ctx.content / name).unlink()
            return rows

        return meddle

    meddled = dataclasses.replace(READ, open=open_meddled)
    make(ctx.content, 12)
    after |= {"n010.jpg": "77", "n000.jpg": "99", "n050.jpg": "50"}
    assert run(meddled, ctx).computed == 2
    images = ctx.file("content", "images")
    assert store.read_rows(images, ["n010"], ["value"])[0]["value"] == 77, "read again"
    assert run(meddled, ctx).cached == 13
    (ctx.content / "n060.jpg").write_text("60")
    after |= {"n060.jpg": None, "n001.jpg": "99"}
    walks.clear()
    assert run(meddled, ctx).inputs == 13 and len(walks) == 2, "a file that it read is gone"
    assert run(READ, ctx).rejected == 1, "n001 is what n000 is by now"
    (ctx.content / "a.jpg").write_text("99")
    walks.clear()
    assert run(READ, ctx).rejected == 2 and "a" in store.keys(images) and len(walks) == 1
