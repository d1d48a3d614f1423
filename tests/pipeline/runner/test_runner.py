"""Resuming, staleness, rejects and the lock, on a stage that squares numbers in text files."""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import profile
from pipeline.caches import reader as store
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.runner import compute
from pipeline.runner.run import Summary, run_collections, run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from pipeline.runner.staleness import is_settled
from stages.tools import verify
from tests.support.two_stages import READ, SQUARE, computed, contents, context, explained, make, open_read, run


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return context(tmp_path)


def test_computes_once_and_reads_back(ctx: Context) -> None:
    assert run(READ, ctx).computed == 10
    assert run(SQUARE, ctx).cached == 10
    assert computed() == 20
    assert run(READ, ctx).computed == run(SQUARE, ctx).computed == computed() == 0
    path = ctx.file("content", "latents")
    assert store.keys(path) == [f"n{i:03d}" for i in range(10)]
    assert store.read_rows(path, ["n003"], ["square"])[0]["square"].tolist() == [9, 9, 9]
    assert not list(ctx.cache.rglob("*.parts")) and not list(ctx.cache.rglob(".*.tmp"))


def test_rejects_are_listed_remembered_and_limited(ctx: Context) -> None:
    (ctx.content / "n004.jpg").write_text("four")
    (ctx.content / "n0005.jpg").symlink_to("nowhere")
    summary = run(READ, ctx)
    assert (summary.inputs, summary.cached, summary.rejected) == (11, 9, 2)
    lines = [json.loads(x) for x in (ctx.cache / "content/rejects.jsonl").read_text().splitlines()]
    assert {(x["key"], x["stage"], x["reason"]) for x in lines} == {
        ("n004", "read", "not a number"),
        ("n0005", "read", "cannot be read: No such file or directory"),
    }
    computed()
    assert run(READ, ctx).rejected == 2 and computed() == 0
    assert run(READ, dataclasses.replace(ctx, retry_rejected=True)).rejected == 2 and computed() == 1
    assert run_collections(READ, dataclasses.replace(ctx, max_rejects=1)) == 3
    assert run_collections(READ, dataclasses.replace(ctx, max_rejects=2)) == 0
    (ctx.content / "n004.jpg").write_text("4")
    assert run(READ, ctx).rejected == 1
    assert "n004" not in (ctx.cache / "content/rejects.jsonl").read_text()


@pytest.mark.parametrize(
    "change, cause",
    [
        ({"params": {"a": 2}}, "params.a 1 -> 2"),
        ({"weights": {"net": "bb"}}, "weights.net aa -> bb"),
        ({"version": 2}, "version 1 -> 2"),
        ({"params": {}}, "params.a 1 -> none"),
    ],
)
def test_a_changed_recipe_recomputes_all_and_is_explained(ctx: Context, change: dict, cause: str) -> None:
    run(READ, ctx)
    run(SQUARE, ctx)
    computed()
    changed = dataclasses.replace(READ, **change)
    assert cause in explained(changed, ctx)
    assert run(changed, ctx).computed == computed() == 10
    assert run(SQUARE, ctx).computed == 0, "the rows came out the same, so what is made from them holds"


def test_settled_is_reported_without_looking_at_rows(ctx: Context) -> None:
    def settled(stage: StageSpec = SQUARE, ctx: Context = ctx) -> bool:
        return is_settled(stage, "content", ctx)

    (ctx.content / "n004.jpg").write_text("four")
    run(READ, ctx)
    run(SQUARE, dataclasses.replace(ctx, limit=5))
    assert not settled(), "some keys were beyond the limit"
    run(SQUARE, ctx)
    assert settled() and not settled(READ), "files may have changed"
    assert not settled(dataclasses.replace(SQUARE, version=2))
    assert not settled(ctx=dataclasses.replace(ctx, limit=5)), "only a survey knows"
    (ctx.content / "n001.jpg").write_text("77")
    run(READ, ctx)
    assert not settled()
    run(SQUARE, ctx)
    assert settled()
    path = ctx.file("content", "latents")
    verify._drop(path, {"n002"})
    assert not settled()
    (path.with_suffix(".parts")).mkdir()
    run(SQUARE, ctx)
    (path.with_suffix(".parts")).mkdir()
    path.rename(path.with_suffix(".parts") / "000001.h5")
    assert not settled(), "parts are still to be compacted"


def test_only_rows_of_changed_inputs_are_stale(ctx: Context) -> None:
    run(READ, ctx)
    run(SQUARE, ctx)
    computed()
    (ctx.content / "n001.jpg").write_text("77")
    (ctx.content / "n002.jpg").unlink()
    os.utime(ctx.content / "n003.jpg", (1, 1))  # new modification time, same content
    (ctx.content / "n500.jpg").write_text("500")
    message = explained(READ, ctx)
    assert "1 rows stale: input changed (source)" in message and "1 rows stale: input gone (source)" in message
    assert run(READ, ctx).cached == 10 and computed() == 2
    assert "1 rows stale: input changed (images)" in explained(SQUARE, ctx)
    assert run(SQUARE, ctx).computed == 2
    assert store.read_rows(ctx.file("content", "latents"), ["n001"], ["square"])[0]["square"][0] == 77**2
    assert "n002" not in store.keys(ctx.file("content", "latents"))


def test_of_equal_files_the_first_is_kept_and_follows_changes(ctx: Context) -> None:
    for name in ("n003b", "n099"):
        (ctx.content / f"{name}.jpg").write_text("3")
    read_rejects = (ctx.cache / "content/rejects.jsonl").read_text
    assert run(READ, ctx).rejected == 2
    assert read_rejects().count("the same file as 'n003.jpg'") == 2
    computed()
    assert run(READ, ctx).rejected == 2 and computed() == 0
    (ctx.content / "n003.jpg").unlink()
    assert run(READ, ctx).renamed == 1 and computed() == 0, "the next one takes its place"
    assert "n003b" in store.keys(ctx.file("content", "images"))
    (ctx.content / "a.jpg").write_text("3")
    assert run(READ, ctx).cached == 10
    assert {"n003b", "n099"} <= {json.loads(x)["key"] for x in read_rejects().splitlines()}


def test_sources_in_a_gzipped_tar_are_read_in_one_pass(ctx: Context, tmp_path: Path) -> None:
    for i in range(30):  # stored in reverse, the first two the same
        (ctx.content / f"n{i:03d}.jpg").write_text(str(max(i, 1)))
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as archive:
        for i in reversed(range(30)):
            archive.add(ctx.content / f"n{i:03d}.jpg", f"n{i:03d}.jpg")
    packed = dataclasses.replace(ctx, content=tmp_path / "in.tar.gz", cache=tmp_path / "packed")
    assert run(READ, packed).rejected == run(READ, ctx).rejected == 1
    assert contents(packed.file("content", "images")) == contents(ctx.file("content", "images"))


def test_a_limit_keeps_what_lies_beyond(ctx: Context) -> None:
    few = dataclasses.replace(ctx, limit=4)
    assert run(READ, few).computed == 4
    assert run(READ, ctx).computed == 6
    assert run(READ, few) == Summary("read", "content", 4, 4, 0, 0)
    assert len(store.keys(ctx.file("content", "images"))) == 10


def test_a_failing_worker_keeps_what_is_done(ctx: Context) -> None:
    def broken(_: Context) -> Worker:
        good = open_read(ctx)

        def work(items: Sequence[Item]) -> Sequence[Row | Reject]:
            if items[0].key == "n006":
                raise RuntimeError("boom")
            return good(items)

        return work

    with pytest.raises(UserError, match="stage read, keys n006 to n008: RuntimeError: boom"):
        run(dataclasses.replace(READ, open=broken), ctx)
    assert run(READ, ctx).computed == 4


def test_a_row_of_the_wrong_shape_is_refused(ctx: Context) -> None:
    run(READ, ctx)
    with pytest.raises(UserError, match=r"key n000: square has shape \(3,\), expected \(4,\)"):
        run(dataclasses.replace(SQUARE, columns={"square": Column("f4", (4,))}), ctx)


def test_faults_say_what_to_do(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `hypernst align` first") as fault:
        run(SQUARE, ctx)
    assert fault.value.status == 2
    with pytest.raises(UserError, match="no such folder or file"):
        run(READ, dataclasses.replace(ctx, content=tmp_path / "nowhere"))


def test_a_second_run_stops_and_names_the_holder(ctx: Context) -> None:
    with (
        lock(ctx.cache, "masks (style)"),
        pytest.raises(UserError, match=rf"stage masks \(style\) \(pid {os.getpid()} on"),
    ):
        run(READ, ctx)
    run(READ, ctx)


def test_killed_at_any_moment_the_rerun_ends_as_if_undisturbed(ctx: Context, tmp_path: Path) -> None:
    make(ctx.content, 60)
    (ctx.content / "n013.jpg").write_text("bad")
    run(READ, ctx)
    whole = contents(ctx.file("content", "images"))
    killed = dataclasses.replace(ctx, cache=tmp_path / "killed")
    code = (
        "import pathlib; from pipeline import profile; from pipeline.runner import compute as runner\n"
        "from tests.support import two_stages as t\n"
        "runner.PART_SECONDS = 0.02\n"
        f"folder, cache = pathlib.Path({str(ctx.content)!r}), pathlib.Path({str(killed.cache)!r})\n"
        "t.run(t.READ, t.Context(profile.load('tiny'), content=folder, cache=cache))"
    )
    kills = 0
    for i in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "DELAY": "0.05"},
            cwd=Path(__file__).parents[3],
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(0.5 + 0.15 * i)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
            process.wait()
    run(READ, killed)
    again = contents(killed.file("content", "images"))
    assert [e[1:] for e in whole[0].values()] == [e[1:] for e in again[0].values()] and whole[1] == again[1]
    assert kills > 1 and not list(killed.cache.rglob(".*.tmp")) and not list(killed.cache.rglob("*.parts"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 20_000):
        folder, cache = tmp_path / f"in{count}", tmp_path / f"cache{count}"
        make(folder, count)
        code = (
            "import pathlib, resource; from pipeline import profile; from tests.support import two_stages as t\n"
            f"ctx = t.Context(profile.load('tiny'), content=pathlib.Path({str(folder)!r}), "
            f"cache=pathlib.Path({str(cache)!r}))\n"
            "t.run(t.READ, ctx), t.run(t.SQUARE, ctx), t.run(t.READ, ctx)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
        )
        peaks.append(int(out.stdout))
    print(f"{peaks} MB")
    assert peaks[1] - peaks[0] < 50


def test_numbers_as_inputs(tmp_path: Path) -> None:
    def opened(ctx: Context) -> Worker:
        return lambda items: [{"value": int(item.key)} if item.key[-1] != "2" else Reject("two") for item in items]

    stage = StageSpec(name="count", output="scores", columns={"value": Column("f4")}, open=opened, numbered=100)
    ctx = Context(profile.load("tiny"), cache=tmp_path, content=tmp_path / "none")
    for limit, made in ((5, 5), (14, 9), (5, 0), (14, 0)):  # fewer do not drop what is there
        done = run_stage(stage, "directions", dataclasses.replace(ctx, limit=limit))
        assert (done.inputs, done.computed) == (limit, made) and done.rejected == (1 if limit == 5 else 2)
    with store.Cache(ctx.file("directions", "scores")) as cache:
        assert [int(row["value"]) for row in cache.rows(cache.keys(), ["value"])] == [0, 1, *range(3, 12), 13]


def test_a_batch_holds_few_bytes_of_files() -> None:
    large = compute.BATCH_BYTES
    sizes = [("a", 1), ("b", 1), ("c", large), ("d", 1), ("e", 1), ("f", 1), ("g", -1)]
    assert list(compute._batches(sizes, 3)) == [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
    assert list(compute._batches([], 3)) == []
