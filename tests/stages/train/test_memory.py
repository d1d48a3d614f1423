"""What training says of its memory: counted without computing, and what it advises when there is not enough."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training.peak_memory import PeakMemory
from stages.loaders import generator as generators
from stages.train import memory
from tests.support import small_run

MB = 1 << 20


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
