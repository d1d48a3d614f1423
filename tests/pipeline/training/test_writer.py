"""Checkpoints cost a training no more than a copy: written beside it, by time, and never lost without a word."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import device
from pipeline.errors import UserError
from pipeline.training import checkpoint, loop
from pipeline.training.loop import Loop
from pipeline.training.state import State
from pipeline.training.writer import Writer


def state_in(folder: Path) -> State:
    net = nn.Linear(2, 1, bias=False)
    nn.init.ones_(net.weight)
    return State(folder / "x.safetensors", {"net": net}, {}, {}, extra={"phase": "one"})


def test_a_checkpoint_is_written_beside_the_training_as_it_was_when_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, writer, go, write = state_in(tmp_path), Writer("test"), threading.Event(), checkpoint.save

    def slow(*arguments: Any) -> None:
        assert go.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    writer.save(state, 7, 1.5)
    with torch.no_grad():
        state.nets["net"].weight.zero_()
    state.extra["phase"] = "two"
    assert not state.path.exists()
    go.set()
    writer.wait()
    tensors, meta = checkpoint.load(state.path)
    assert tensors["net.weight"].tolist() == [[1.0, 1.0]] and (meta["step"], meta["extra"]) == (7, {"phase": "one"})
    assert "test: step 7: a checkpoint of 0.0 MB, written in" in capsys.readouterr().err


def test_without_memory_for_a_copy_it_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "memory", lambda: (8, 8))
    threads, write = [], checkpoint.save

    def noted(*arguments: Any) -> None:
        threads.append(threading.current_thread())
        write(*arguments)

    monkeypatch.setattr(checkpoint, "save", noted)
    Writer("test").save(state_in(tmp_path), 1, 0.0)
    assert threads == [threading.current_thread()] and (tmp_path / "x.safetensors").exists()


def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer, state = Writer("test"), state_in(tmp_path / "file")
    writer.save(state, 1, 0.0)
    with pytest.raises(UserError, match="cannot be written"):
        writer.save(state, 2, 0.0)


def test_a_loop_saves_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    for minutes, expected in ((15.0, [4]), (-1.0, [1, 2, 3, 4, 4])):
        monkeypatch.setattr(loop, "SAVE_MINUTES", minutes)
        with Loop("test", tmp_path / str(minutes), 4, save=saved.append) as steps:
            for _ in steps:
                pass
        assert saved == expected
        saved.clear()
