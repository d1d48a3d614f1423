"""What training says of its memory: counted without computing, and what it advises when there is not enough."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.peak_memory import PeakMemory
from stages.loaders import generator as generators
from stages.train import memory
from stages.train import run as train
from stages.train.state import State, build
from tests.support import small_run

MB = 1 << 20
NETS = ("hyper", "image_discriminator", "patch_discriminator")


def portable(**settings: object) -> Context:
    base = profile.load("portable")
    return Context(dataclasses.replace(base, train=dataclasses.replace(base.train, **settings)))  # type: ignore[arg-type]


def test_storages_are_counted_from_making_to_freeing() -> None:
    with PeakMemory() as peak:
        net = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(4)))
        assert peak.held == 16 * MB
        x = torch.zeros(1024, 1024)
        view = x.T.reshape(-1)[:10]  # a copy first, then a view of it
        assert peak.held == 24 * MB
        del view
        assert peak.held == 20 * MB
        y = net(x)
        assert peak.held == 36 * MB
        y.sum().backward()
        assert peak.held < peak.most
        del y
        assert peak.held == 36 * MB and peak.most >= 44 * MB  # weights, gradients, x


def test_each_saving_takes_less() -> None:
    plain = memory.step_bytes(portable(batch=4, micro_batch=4, checkpointing=False))
    again = memory.step_bytes(portable(batch=4, micro_batch=4, checkpointing=True))
    single = memory.step_bytes(portable(batch=4, micro_batch=1, checkpointing=True))
    assert single < again < plain
    assert single == memory.step_bytes(portable(batch=1, micro_batch=1, checkpointing=True))
    held = sum(p.nbytes for p in generators.blank(portable()).parameters())
    assert single > held


def test_what_does_not_fit_is_told_with_settings_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = portable(batch=4, micro_batch=4, checkpointing=False)
    assert "takes about" in memory.forecast(ctx)
    need = memory.step_bytes(ctx) / memory.GB + memory.OVERHEAD
    monkeypatch.setattr(memory, "available", lambda device: need - 0.1)
    with pytest.raises(UserError, match=r"this would fit.*train\.micro_batch = \d, train\.checkpointing") as fault:
        memory.forecast(ctx)
    assert fault.value.status == 2
    monkeypatch.setattr(memory, "available", lambda device: 0.9)
    with pytest.raises(UserError, match=r"this network needs at least 1\.\d GB"):
        memory.forecast(ctx)


@pytest.mark.parametrize("settings", [{"image_discriminator_base": 131_072}, {"heads": "hyperstyle", "width": 1024}])
def test_absurdly_large_networks_are_told_or_refused_before_they_are_built(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = profile.load("tiny")
    ctx = Context(dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, **settings)), device="cpu")
    monkeypatch.setattr(memory, "available", lambda device: 1000.0)
    assert "building such networks, and each step, takes minutes" in memory.forecast(ctx, building=True)
    monkeypatch.setattr(memory, "available", lambda device: memory.LARGE)
    monkeypatch.setattr(memory, "_way_out", lambda ctx, free: "take less")
    with pytest.raises(UserError, match=r"a step takes about .*take less"):
        memory.forecast(ctx, building=True)


PEAKS = {1: 7.0, 2: 9.0, 4: 13.0, 8: 21.0}  # GB of a step by its samples


@pytest.mark.parametrize(
    ("free", "peaks", "size"),
    [
        (99.0, PEAKS, 8),
        (14.5, PEAKS, 4),
        (14.0, PEAKS, 2),
        (2.0, PEAKS, 1),
        (99.0, {1: 7.0}, 1),  # others are out of memory
        (20.0, {1: 7.0, 2: 7.1, 4: 9.0, 8: 30.0}, 4),  # a line through the first two would take 8
    ],
)
def test_as_many_samples_go_at_once_as_measured_steps_let_fit(
    free: float, peaks: dict[int, float], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 % of what is free may be taken."""

    def peak(ctx: Context, state: State, generator: object, samples: int) -> float:
        if samples not in peaks:
            raise torch.OutOfMemoryError
        return peaks[samples]

    monkeypatch.setattr(memory, "_peak", peak)
    monkeypatch.setattr(memory, "available", lambda where: free)
    ctx = dataclasses.replace(small_run.context(tmp_path, "auto", batch=8, micro_batch=0), device="cuda")
    state, net = State(tmp_path / "none", {name: nn.Linear(1, 1) for name in NETS}, {}), nn.Identity()
    chosen = memory.choose_micro_batch(ctx, state, net)  # type: ignore[arg-type]
    assert chosen.profile.train.micro_batch == size == state.extra["micro_batch"]
    monkeypatch.setattr(memory, "available", lambda where: 0.0)  # a resumed run goes on as it began
    assert memory.choose_micro_batch(ctx, state, net) == chosen  # type: ignore[arg-type]


@pytest.mark.weights
def test_a_run_that_leaves_it_open_takes_what_is_counted_and_measuring_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, told in {"empty_cache": None, "reset_peak_memory_stats": None, "max_memory_reserved": 3e9}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, told=told: told)
    with small_run.installed():
        ctx = small_run.context(tmp_path, "open", micro_batch=0, batch=2)
        small_run.write_shards(ctx)
        net = small_run.generator(ctx)
        state = build(ctx, net)
        before = {name: t.clone() for name, t in state.content(0, 0)[0].items()}
        assert memory._peak(ctx, state, net, 1) == 3.0
        after = state.content(0, 0)[0]
        assert before.keys() == after.keys() and all(torch.equal(t, after[name]) for name, t in before.items())
        assert all(p.grad is None for p in state.hyper.parameters())
        monkeypatch.setattr(memory, "_counted", lambda ctx, samples: 1.0 * samples)
        monkeypatch.setattr(memory, "available", lambda where: 2.0)
        train.run(ctx, shipped=False, steps=1)
    assert checkpoint.meta(ctx.run / "checkpoint.safetensors")["extra"]["micro_batch"] == 1


def test_running_out_of_memory_comes_with_advice() -> None:
    ctx = portable(batch=4, micro_batch=4)
    with pytest.raises(UserError, match=r"out of memory on cpu; .*this would fit"), memory.advice(ctx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(UserError, match="out of memory"), memory.advice(ctx):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="something else"), memory.advice(ctx):
        raise RuntimeError("something else")


@pytest.mark.weights
@pytest.mark.slow
def test_the_count_is_what_a_process_holds(tmp_path: Path) -> None:
    """Within a quarter, the libraries' share and what the allocator keeps included."""
    import subprocess
    import sys

    ctx = dataclasses.replace(portable(batch=4, micro_batch=4), cache=tmp_path / "cache", run=tmp_path / "run")
    small_run.write_shards(ctx, count=5, latent=0.3)
    script = (
        "import dataclasses, resource, sys\n"
        "from pathlib import Path\n"
        "from stages.train import run as train\n"
        "from tests.stages.train.test_memory import portable\n"
        "base = Path(sys.argv[1])\n"
        "ctx = portable(batch=4, micro_batch=4, validate_every=0)\n"
        "train.run(dataclasses.replace(ctx, cache=base / 'cache', run=base / 'run'), steps=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(memory.__file__).parents[2],
    )
    assert found.returncode == 0, found.stderr
    held, need = float(found.stdout), memory.step_bytes(ctx) / 1e9 + memory.OVERHEAD
    assert 0.75 < held / need < 1.33
