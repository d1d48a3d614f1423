"""Training through the shards: both phases do what they should, and no interruption changes a bit of the result."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import hypernetwork
from pipeline import checkpoint
from pipeline.context import Context
from pipeline.errors import Fault
from stages import networks, train
from tests import small

pytestmark = pytest.mark.weights  # LPIPS
ROOT = Path(train.__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    kept = networks.generator, hypernetwork.Head, torch.get_num_threads()
    small.install()
    yield
    networks.generator, hypernetwork.Head = kept[:2]  # type: ignore[misc]
    torch.set_num_threads(kept[2])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("train")
    small.write_shards(small.context(base, ""))
    return base


@pytest.fixture(scope="module")
def half(base: Path) -> dict[str, Tensor]:
    """The state after the reconstruction phase, in run `parts`."""
    ctx = small.context(base, "parts")
    assert train.run(ctx, shipped=False, steps=2) == 0
    return state(ctx)


@pytest.fixture(scope="module")
def whole(base: Path) -> dict[str, Tensor]:
    """The state after both phases, uninterrupted, in run `whole`."""
    ctx = small.context(base, "whole")
    assert train.run(ctx, shipped=False, export=base / "export.safetensors") == 0
    return state(ctx)


def state(ctx: Context) -> dict[str, Tensor]:
    return checkpoint.load(ctx.run / "checkpoint.safetensors")[0]


def log(ctx: Context) -> list[dict]:
    rows = [json.loads(line) for line in (ctx.run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_two_halves_are_the_whole_to_the_bit(base: Path, half: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    ctx = small.context(base, "parts")
    train.run(ctx)
    assert_same(state(ctx), whole)
    lines = log(ctx)
    assert lines == log(small.context(base, "whole"))
    assert [(row["step"], row["phase"]) for row in lines] == [
        (1, "reconstruct"), (2, "reconstruct"), (3, "stylize"), (4, "stylize")]  # fmt: skip
    assert lines[0].keys() == {"step", "phase", "l2", "lpips"}
    assert lines[2].keys() == {"step", "phase", "adversarial", "patch", "critic", "patch_critic"}
    assert {"l2", "lpips"} < lines[3].keys()  # every third step has a reconstruction, too


def test_each_phase_moves_its_own_parameters(half: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    moved = {name for name in half if not torch.equal(half[name], whole[name])}
    hyper = {name for name in moved if name.startswith("hyper.")}
    heads = tuple(f"hyper.heads.{i}." for i in range(small.SETTINGS["start_layer"], 14))
    assert hyper and all(name.startswith(heads) for name in hyper)
    assert {name.split(".")[0] for name in moved} == {"hyper", "ema", "image_critic", "patch_critic", "adam"}
    assert {name.split(".")[0] for name in whole.keys() - half.keys()} == {"critic_adam"}  # critics had nothing to do


def test_critics_act_every_so_many_steps(base: Path) -> None:
    ctx = small.context(base, "lazy", critics_every=2, style=1.0)
    train.run(ctx, shipped=False, steps=3)
    after = state(ctx)
    train.run(ctx)
    critics = {"adversarial", "patch", "critic", "patch_critic"}
    assert [critics & row.keys() for row in log(ctx)[2:]] == [critics, set()]
    assert_same(*({n: t for n, t in s.items() if n.startswith(("image_critic.", "patch_critic.", "critic_adam."))}
                  for s in (after, state(ctx))))


def test_killed_in_mid_step_it_goes_on_from_the_checkpoint(base: Path, whole: dict[str, Tensor]) -> None:
    code = f"""
import os, signal
from pathlib import Path
from stages import train
from tests import small
small.install()
train.SAVE_EVERY = 3
step = train.Stylisation.critic
def critic(self, *given):
    critic.calls += 1
    if critic.calls == 4:  # the second half of step 4
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *given)
critic.calls = 0
train.Stylisation.critic = critic
train.run(small.context(Path({str(base)!r}), "killed"), shipped=False)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    ctx = small.context(base, "killed")
    assert checkpoint.load(ctx.run / "checkpoint.safetensors")[1]["step"] == 3
    train.run(ctx)
    assert_same(state(ctx), whole)
    assert [row["step"] for row in log(ctx)] == [1, 2, 3, 4]  # the fourth was logged once, by who finished it


def test_an_export_starts_a_new_run_in_the_second_phase(base: Path, whole: dict[str, Tensor]) -> None:
    ctx = small.context(base, "next", weights=str(base / "export.safetensors"))
    train.run(ctx, steps=1)
    assert [row["phase"] for row in log(ctx)] == ["stylize"]
    found = state(ctx)
    early = [name for name in found if name.startswith(("ema.content.", "ema.heads.0."))]
    assert early and all(torch.equal(found[name], whole[name].half().float()) for name in early)
    table = networks.generator(ctx).layer_table()
    averaged = networks.trained_hypernetwork(ctx, table)
    assert torch.equal(averaged.mask.first.bias, found["ema.mask.first.bias"])


def test_a_stop_is_heard_after_the_step_and_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = small.context(base, "stopped")
    step = train.train_step

    def interrupted(*given: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)  # type: ignore[arg-type]

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(train, "train_step", interrupted)
    with pytest.raises(Fault, match=r"stopped after step 1 of 4; .*again to go on"):
        train.run(ctx, shipped=False)
    assert checkpoint.load(ctx.run / "checkpoint.safetensors")[1]["step"] == 1
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_steps_that_are_not_finite_change_nothing(tmp_path: Path) -> None:
    ctx = small.context(tmp_path, "nan")
    small.write_shards(ctx, latent=float("nan"))
    train.run(ctx, shipped=False, steps=1)
    first = state(ctx)
    train.run(ctx, steps=3)
    tensors, meta = checkpoint.load(ctx.run / "checkpoint.safetensors")
    assert meta["skipped"] == 3 and all(bool(t.isfinite().all()) for t in tensors.values())
    assert_same(first, tensors)


def test_a_start_layer_outside_the_generator_is_wrong_use(base: Path) -> None:
    ctx = small.context(base, "outside", start_layer=99, reconstruction_steps=0)
    with pytest.raises(Fault, match=r"train\.start_layer: start layer 99") as fault:
        train.run(ctx, shipped=False, steps=1)
    assert fault.value.status == 2
