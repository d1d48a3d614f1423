"""A training takes its folder before it looks at the checkpoint in it: another may be about to replace that."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.training.loop import Loop, lock_run
from stages.train import run, state
from tests.support import small_run


def test_a_held_run_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = small_run.context(tmp_path, "held", reconstruction_steps=2)
    read: list[object] = []
    monkeypatch.setattr(run, "Samples", lambda *words: read.append(words))
    monkeypatch.setattr(state.State, "resume", lambda self: read.append(self))
    with lock(ctx.run, "train"), pytest.raises(UserError, match="in use by stage train"):
        run.run(ctx, steps=2)
    assert read == []


def test_the_loop_joins_in_the_lock_of_its_run(tmp_path: Path) -> None:
    with lock_run(tmp_path):
        with Loop("train", tmp_path, 0, save=lambda _: None):
            pass
        with pytest.raises(UserError, match="in use by stage train"), lock(tmp_path, "train"):
            pass
    with lock(tmp_path, "train"):
        pass
