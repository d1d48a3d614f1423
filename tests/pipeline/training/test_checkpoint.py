"""Training state is restored exactly; a write that fails or is killed keeps the old file."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline import weights
from pipeline.errors import UserError
from pipeline.training import checkpoint

ROOT = Path(checkpoint.__file__).parents[2]
DTYPES = (torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool)


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=4), st.integers())
@settings(max_examples=25, deadline=None)
def test_tensors_and_meta_come_back(tmp_path_factory: pytest.TempPathFactory, kinds: list, step: int) -> None:
    path = tmp_path_factory.mktemp("c") / "deep" / "x.safetensors"
    tensors = {f"t.{i}": (torch.randn(shape) * 9).to(dtype) for i, (dtype, shape) in enumerate(kinds)}
    checkpoint.save(path, tensors, {"step": step, "phase": "stylize"})
    loaded, meta = checkpoint.load(path)
    assert meta == {"step": step, "phase": "stylize"} and loaded.keys() == tensors.keys()
    assert all(loaded[n].dtype == t.dtype and torch.equal(loaded[n], t) for n, t in tensors.items())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_views_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    checkpoint.save(tmp_path / "x.safetensors", {"a": base, "b": base.T, "c": base[0]}, {})
    loaded, _ = checkpoint.load(tmp_path / "x.safetensors")
    assert torch.equal(loaded["b"], base.T) and torch.equal(loaded["c"], base[0])


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "pipe", "deep"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(99)}, {})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "deep":
        save_file({"a": torch.zeros(9)}, path, {"meta": "[" * 100_000})
    else:
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match=r"x\.safetensors: not a readable checkpoint"):
        checkpoint.load(path)


def test_what_may_not_be_read_just_now_is_not_called_damaged(tmp_path: Path) -> None:
    """To delete a sound checkpoint would be bad advice."""
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(9)}, {})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        for read in (checkpoint.load, lambda path: weights.tensors(str(path))):
            with pytest.raises(UserError, match=r"may not open any more files.*it is left as it is"):
                read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_failed_write_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(3)}, {"step": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "x.safetensors", {}, {})

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(UserError, match=r"x\.safetensors: .*space"):
        checkpoint.save(path, {"a": torch.zeros(3)}, {"step": 2})
    assert checkpoint.load(path)[1] == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "x.safetensors"]


def test_a_kill_while_writing_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(3)}, {"step": 1})
    code = f"""
import os, signal, torch
from pathlib import Path
from pipeline.training import checkpoint
written = checkpoint.save_file
def save_file(tensors, place, **more):
    written(tensors, place, **more)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = save_file
checkpoint.save(Path({str(path)!r}), {{"a": torch.zeros(3)}}, {{"step": 2}})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert checkpoint.load(path)[1] == {"step": 1}


def test_shipped_weights_are_halved_but_not_their_counters() -> None:
    halved = checkpoint.half({"w": torch.ones(2), "n": torch.tensor(70000)})
    assert halved["w"].dtype == torch.float16 and halved["n"].item() == 70000


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def step(model: nn.Sequential, optimiser: torch.optim.Optimizer, number: int) -> None:
    """Two steps of everything, then the first layer is frozen, as when training changes its phase."""
    model[0].requires_grad_(number < 2)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    optimiser.zero_grad(set_to_none=True)
    (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
    optimiser.step()


@given(st.integers(0, 5), st.sampled_from(["adam", "adamw", "sgd"]))
@settings(max_examples=15, deadline=None)
def test_an_optimiser_resumes_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, cut: int, kind: str) -> None:
    path = tmp_path_factory.mktemp("o") / "x.safetensors"

    def optimiser_of(model: nn.Sequential) -> torch.optim.Optimizer:
        if kind == "sgd":
            return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)(model.parameters(), lr=0.01)

    whole = net()
    optimiser = optimiser_of(whole)
    for i in range(5):
        step(whole, optimiser, i)
    first = net()
    optimiser = optimiser_of(first)
    for i in range(cut):
        step(first, optimiser, i)
    saved = {f"net.{n}": t for n, t in first.state_dict().items()} | checkpoint.optimiser_tensors(optimiser, "adam")
    checkpoint.save(path, saved | {"discriminator_adam.0.step": torch.tensor(99.0)}, {})
    tensors, _ = checkpoint.load(path)
    second = net()
    second.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")})
    optimiser = optimiser_of(second)
    checkpoint.restore_optimiser(optimiser, tensors, "adam")
    for i in range(cut, 5):
        step(second, optimiser, i)
    own: dict[str, Tensor] = whole.state_dict()
    assert all(torch.equal(t, own[name]) for name, t in second.state_dict().items())
