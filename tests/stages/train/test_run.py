"""Training through the shards: both phases do what they should, and no interruption changes a bit of the result."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.shards import store
from pipeline.training import checkpoint
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.train import page as training_page
from stages.train import run as train
from stages.train.state import PHASES, build, enter_phase
from tests.support import servers, small_run
from tests.support.servers import Faulty

pytestmark = pytest.mark.weights  # LPIPS
ROOT = Path(train.__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    with small_run.installed():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("train")
    small_run.write_shards(small_run.context(base, ""))
    return base


@pytest.fixture(scope="module")
def half(base: Path) -> dict[str, Tensor]:
    """The state after the reconstruction phase, in run `parts`."""
    train.run(ctx := small_run.context(base, "parts"), shipped=False, steps=2)
    return state(ctx)


@pytest.fixture(scope="module")
def whole(base: Path) -> dict[str, Tensor]:
    """The state after both phases, uninterrupted, in run `whole`."""
    ctx = small_run.context(base, "whole")
    assert train.run(ctx, shipped=False, export=base / "export.safetensors") == 0
    return state(ctx)


def state(ctx: Context) -> dict[str, Tensor]:
    return checkpoint.load(ctx.run / "checkpoint.safetensors")[0]


def log(ctx: Context) -> list[dict]:
    rows = [json.loads(line) for line in (ctx.run / "log.jsonl").read_text().splitlines()]
    clocks = ("time", "wait", "seconds")
    return [{name: value for name, value in row.items() if name not in clocks} for row in rows]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_two_halves_are_the_whole_to_the_bit(base: Path, half: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    ctx = small_run.context(base, "parts")
    train.run(ctx)
    assert_same(state(ctx), whole)
    lines = log(ctx)
    assert lines == log(small_run.context(base, "whole"))
    assert [(row["step"], row["phase"]) for row in lines] == [
        (1, "reconstruct"), (2, "reconstruct"), (3, "stylize"), (4, "stylize")]  # fmt: skip
    assert lines[0].keys() == {"step", "phase", "l2", "lpips"}
    assert lines[2].keys() == {"step", "phase", "adversarial", "patch", "discriminator", "patch_discriminator"}
    assert {"l2", "lpips"} < lines[3].keys()  # every third step has a reconstruction, too


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_shards_elsewhere_train_the_same_run_to_the_bit(
    base: Path, whole: dict[str, Tensor], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "STALL", 0.3)
    servers.settle(monkeypatch)
    faulty = Faulty(servers.s3() if kind == "s3" else servers.files(base / "cache", password="secret"), 5, 0.5)
    with servers.served(faulty) as address:
        url = f"{address}/shards?key=secret".replace("//", "//me:secret@")
        if kind == "s3":
            servers.upload(address, base / "cache" / "shards")
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            url = "s3://ours/shards"
        ctx = dataclasses.replace(small_run.context(base, kind), shards_at=url)
        train.run(ctx, shipped=False, steps=2)
        train.run(ctx)
    assert_same(state(ctx), whole)
    assert faulty.failed > 1
    assert [path for path in ctx.run.rglob("*") if path.is_file() and b"secret" in path.read_bytes()] == []


def test_each_phase_moves_its_own_parameters(half: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    moved = {name for name in half.keys() & whole.keys() if not torch.equal(half[name], whole[name])}
    assert {name.split(".")[0] for name in half.keys() - whole.keys()} == {"adam"}  # moments of what is frozen now
    hyper = {name for name in moved if name.startswith("hyper.")}
    heads = tuple(f"hyper.heads.{i}." for i in range(small_run.SETTINGS["start_layer"], 14))
    assert hyper and all(name.startswith(heads) for name in hyper)
    assert {name.split(".")[0] for name in moved} == {
        "hyper",
        "ema",
        "image_discriminator",
        "patch_discriminator",
        "adam",
    }
    assert {name.split(".")[0] for name in whole.keys() - half.keys()} == {
        "discriminator_adam"
    }  # discriminators had nothing to do


def test_what_stylisation_freezes_stays_to_the_bit_for_twenty_steps(base: Path, half: dict[str, Tensor]) -> None:
    ctx = small_run.context(base, "frozen", reconstruction_steps=2, stylization_steps=20)
    train.run(ctx, shipped=False)
    after = state(ctx)
    heads = tuple(f"{net}.heads.{i}." for net in ("hyper", "ema") for i in range(small_run.SETTINGS["start_layer"], 14))
    frozen = [name for name in half if name.startswith(("hyper.", "ema.")) and not name.startswith(heads)]
    assert len(frozen) > 50 and all(torch.equal(half[name], after[name]) for name in frozen if name[:5] == "hyper")
    assert all(torch.allclose(half[name], after[name], atol=1e-2) for name in frozen)  # the average follows, slower
    moved = [name for name in half if name.startswith("hyper.heads.13.") and not torch.equal(half[name], after[name])]
    assert moved


def test_discriminators_act_every_so_many_steps(base: Path) -> None:
    ctx = small_run.context(base, "lazy", discriminators_every=2, style=1.0)
    train.run(ctx, shipped=False, steps=3)
    after = state(ctx)
    train.run(ctx)
    discriminators = {"adversarial", "patch", "discriminator", "patch_discriminator"}
    assert [discriminators & row.keys() for row in log(ctx)[2:]] == [discriminators, set()]
    assert_same(
        *(
            {
                n: t
                for n, t in s.items()
                if n.startswith(("image_discriminator.", "patch_discriminator.", "discriminator_adam."))
            }
            for s in (after, state(ctx))
        )
    )


def test_killed_in_mid_step_it_goes_on_from_the_checkpoint(base: Path, whole: dict[str, Tensor]) -> None:
    code = f"""
import os, signal
from pathlib import Path
from models.losses.objectives import Stylization
from stages.train import run as train
from tests.support import small_run
small_run.install()
train.SAVE_EVERY = 3
step = Stylization.discriminator
def discriminator(self, *given):
    discriminator.calls += 1
    if discriminator.calls == 4:  # the second half of step 4
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *given)
discriminator.calls = 0
Stylization.discriminator = discriminator
train.run(small_run.context(Path({str(base)!r}), "killed"), shipped=False)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    ctx = small_run.context(base, "killed")
    assert checkpoint.load(ctx.run / "checkpoint.safetensors")[1]["step"] == 3
    train.run(ctx)
    assert_same(state(ctx), whole)
    assert [row["step"] for row in log(ctx)] == [1, 2, 3, 4]  # the fourth was logged once, by who finished it


def test_an_export_starts_a_new_run_in_the_second_phase(base: Path, whole: dict[str, Tensor]) -> None:
    ctx = small_run.context(base, "next", weights=str(base / "export.safetensors"))
    train.run(ctx, steps=1)
    assert [row["phase"] for row in log(ctx)] == ["stylize"]
    found = state(ctx)
    early = [name for name in found if name.startswith(("ema.content.", "ema.heads.0."))]
    assert early and all(torch.equal(found[name], whole[name].half().float()) for name in early)
    table = generators.generator(ctx).layer_table()
    averaged = hypernetworks.trained_hypernetwork(ctx, table)
    assert torch.equal(averaged.mask.first.bias, found["ema.mask.first.bias"])


def test_a_stop_is_heard_after_the_step_and_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = small_run.context(base, "stopped")
    step = train.Step.__call__

    def interrupted(*given: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(*given)  # type: ignore[arg-type]

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(train.Step, "__call__", interrupted)
    with pytest.raises(UserError, match=r"stopped after step 1 of 4; .*again to resume") as fault:
        train.run(ctx, shipped=False)
    assert fault.value.status == 143 and checkpoint.load(ctx.run / "checkpoint.safetensors")[1]["step"] == 1
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_steps_that_are_not_finite_change_nothing(tmp_path: Path) -> None:
    ctx = small_run.context(tmp_path, "nan")
    small_run.write_shards(ctx, latent=float("nan"))
    train.run(ctx, shipped=False, steps=1)
    first = state(ctx)
    train.run(ctx, steps=3)
    tensors, meta = checkpoint.load(ctx.run / "checkpoint.safetensors")
    assert meta["extra"]["skipped"] == 3 and all(bool(t.isfinite().all()) for t in tensors.values())
    assert_same(first, tensors)


def test_a_start_layer_outside_the_generator_is_wrong_use_before_reconstruction(base: Path) -> None:
    with pytest.raises(UserError, match=r"train\.start_layer: start layer 99") as fault:
        train.run(small_run.context(base, "outside", start_layer=99), shipped=False, steps=1)
    assert fault.value.status == 2


def test_a_resolution_names_its_first_layer(base: Path) -> None:
    by_side = small_run.context(base, "side", start_layer="32px", reconstruction_steps=0)
    table = generators.generator(by_side).layer_table()
    first = next(entry.index for entry in table if entry.resolution == 32)
    by_row = small_run.context(base, "row", start_layer=first, reconstruction_steps=0)
    for ctx in (by_side, by_row):
        train.run(ctx, shipped=False, steps=1)
    assert_same(state(by_side), state(by_row))
    other = small_run.context(base, "row0", start_layer=0, reconstruction_steps=0)
    train.run(other, shipped=False, steps=1)
    assert not torch.equal(state(other)["hyper.heads.0.out.weight"], state(by_row)["hyper.heads.0.out.weight"])
    with pytest.raises(UserError, match=r"start layer '48px' is no resolution.*4px, 8px"):
        train.run(small_run.context(base, "none", start_layer="48px", reconstruction_steps=0), shipped=False, steps=1)


def test_two_trainings_in_one_folder_are_refused(base: Path) -> None:
    ctx = small_run.context(base, "shared")
    with lock(ctx.run, "train"), pytest.raises(UserError, match=r"in use by stage train \(pid \d+"):
        train.run(ctx, shipped=False, steps=1)


def test_changed_settings_are_told_and_other_networks_refused(base: Path, capsys: pytest.CaptureFixture) -> None:
    train.run(small_run.context(base, "changed"), shipped=False, steps=1)
    capsys.readouterr()
    train.run(small_run.context(base, "changed", learning_rate=1e-5), steps=2)
    assert "train.learning_rate was 0.0003, is 1e-05" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"train\.width was 8, is 16.*another folder with --run") as fault:
        train.run(small_run.context(base, "changed", width=16), steps=3)
    assert fault.value.status == 2


@pytest.mark.parametrize(("batch", "size"), [(3, 2), (1, 1024)])
def test_a_batch_that_does_not_split_is_wrong_use(base: Path, batch: int, size: int) -> None:
    with pytest.raises(UserError, match=f"batch of {batch} in micro-batches of {size} does not split") as fault:
        train.run(small_run.context(base, "odd", batch=batch, micro_batch=size), shipped=False, steps=1)
    assert fault.value.status == 2


def test_rates_rise_at_the_start_and_fall_at_the_end(base: Path) -> None:
    ctx = small_run.context(base, "warm", warm_up=4, cool_down=2, reconstruction_steps=3, stylization_steps=6)
    held = build(ctx, generators.generator(ctx))
    found = []
    for held.step in range(10):
        enter_phase(held, ctx.profile.train)
        found.append(held.optimiser.param_groups[0]["lr"] / ctx.profile.train.learning_rate)
    assert found == pytest.approx([0.25, 0.5, 0.75, 0.25, 0.5, 0.75, 1, 1, 0.5, 0])  # they rise anew in stylisation
    enter_phase(held, dataclasses.replace(ctx.profile.train, cool_down=0))  # past the profile's last step
    assert held.optimiser.param_groups[0]["lr"] == ctx.profile.train.learning_rate


def test_a_grid_is_drawn_measured_and_shown_on_the_page(base: Path) -> None:
    ctx = small_run.context(base, "watched", validate_every=2)
    train.run(ctx, shipped=False)
    sheets = sorted((ctx.run / "grids").glob("*.png"))
    assert [p.name for p in sheets] == ["step-000002.png", "step-000004.png"]
    assert cv2.imread(str(sheets[0])).std() > 5
    rows = training_page.validation(ctx.run)
    assert [row["step"] for row in rows] == [2, 4] and all(row["sifid_64"] > 0 < row["lpips_alex"] for row in rows)
    page = (ctx.run / "training.html").read_text()
    assert page.count("<svg") >= 5 and 'src="grids/step-000004.png"' in page
    assert any((ctx.run / "tensorboard").iterdir())


@pytest.mark.parametrize("phase", PHASES)
def test_a_new_run_starts_in_the_phase_that_is_asked_for(base: Path, phase: str) -> None:
    ctx = small_run.context(base, f"starts-in-{phase}")
    train.run(ctx, shipped=False, phase=phase, steps=1)
    assert [row["phase"] for row in log(ctx)] == [phase]
