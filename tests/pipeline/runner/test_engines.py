"""The bytes of a cache do not depend on the engine, on the layout of its parts, or on a killed actor."""

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline import profile
from pipeline.caches import merge
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner import compute as runner
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.cli import main as cli

ray_only = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [ray]")
COUNT = 150
ROOT = Path(cli.__file__).parents[2]


def open_read(ctx: Context) -> Worker:
    """Turns each file into a row with all kinds of columns; kills its process once when the run folder says so."""

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        order = ctx.run / "kill"
        if order.exists() and any(item.key == "n0077" for item in items):
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        out: list[Row | Reject] = []
        for item in items:
            rng = np.random.default_rng([*item.key.encode()])
            row = {
                "image": rng.bytes(rng.integers(1000, 9000)),
                "path": item.path,
                "code": rng.random((3, 256)),
                "map": rng.integers(0, 3, (64, 64)),
            }
            out.append(Reject("empty") if not item["source"] else row)
        return out

    return work


def open_sum(ctx: Context) -> Worker:
    return lambda items: [{"sum": item["images.code"].sum(1)} for item in items]


READ = StageSpec(
    name="read",
    output="images",
    open=open_read,
    batch=4,
    columns={
        "image": Column("bytes"),
        "path": Column("label"),
        "code": Column("f4", (3, 256)),
        "map": Column("u1", (64, 64)),
    },
)
SUM = StageSpec(
    name="sum", output="latents", open=open_sum, parents={"images": ("code",)}, columns={"sum": Column("f4", (3,))}
)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    (tmp_path / "in").mkdir()
    for i in range(COUNT):
        (tmp_path / f"in/n{i:04d}.jpg").write_text(str(i) if i != 40 else "")
    return Context(profile.load("tiny"), cache=tmp_path / "local", content=tmp_path / "in", run=tmp_path / "run")


@pytest.fixture(scope="module")
def actors() -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={
            "env_vars": {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "pipeline" / "runner")))}
        },
    )
    yield
    ray.shutdown()


def both(ctx: Context) -> list[bytes]:
    """Run both stages; return the bytes of their caches."""
    for stage in (READ, SUM):
        run_stage(stage, "content", ctx)
    folder = ctx.cache / "content"
    assert {p.name for p in folder.iterdir()} == {"images.h5", "latents.h5", "rejects.jsonl", ".sources.json"}
    return [p.read_bytes() for p in sorted(folder.iterdir())]


def test_bytes_do_not_depend_on_the_parts(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = both(ctx)
    monkeypatch.setattr(runner, "PART_SECONDS", 0)
    monkeypatch.setattr(merge, "OPEN", 3)
    pieces = dataclasses.replace(ctx, cache=tmp_path / "pieces")
    for limit in (7, 100):
        run_stage(READ, "content", dataclasses.replace(pieces, limit=limit))
    assert both(pieces) == whole


def test_the_local_engine_never_imports_ray() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import pipeline.runner.run, stages.cli.main, stages.preprocess.shards\n"
        "print('pipeline.runner.engine_ray' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_without_ray_the_way_out_is_reported(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray is not installed; run .*\[ray\]") as fault:
        run_stage(READ, "content", dataclasses.replace(ctx, engine="ray"))
    assert fault.value.status == 2


@ray_only
@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_actors_leave_the_same_bytes(ctx: Context, actors: None, tmp_path: Path, killed: bool) -> None:
    whole = both(ctx)
    if killed:
        ctx.run.mkdir()
        (ctx.run / "kill").touch()
    assert both(dataclasses.replace(ctx, cache=tmp_path / "ray", engine="ray")) == whole
    assert not (ctx.run / "kill").exists()


@ray_only
@pytest.mark.slow
def test_a_fault_of_an_actor_is_reported_in_one_line(ctx: Context, actors: None) -> None:
    ray = dataclasses.replace(ctx, engine="ray")
    run_stage(READ, "content", ray)
    wrong = dataclasses.replace(SUM, columns={"sum": Column("f4", (4,))})
    with pytest.raises(UserError, match=r"stage sum, key n\d+: sum has shape \(3,\), expected \(4,\)"):
        run_stage(wrong, "content", ray)
