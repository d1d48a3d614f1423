"""A training takes its folder before it looks at the checkpoint in it: another may be about to replace that."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipeline import images, weights
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.training import state as pretraining
from pipeline.training.loop import Loop, lock_run
from stages.pretrain import aladin, e4e, generator, inverter, output_head, parser
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


@pytest.mark.parametrize("train", [output_head, parser, aladin, inverter, e4e, generator], ids=lambda m: m.__name__)
def test_every_training_takes_its_folder_first(
    train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = small_run.context(tmp_path, "held")
    for collection in ("content", "style"):
        (tmp_path / "data" / collection).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "data" / collection / f"{i}.png").write_bytes(images.encode(np.zeros((64, 64, 3), np.uint8)))
    monkeypatch.setattr(pretraining.State, "resume", lambda _: pytest.fail("it was read"))
    for module, function in ((train, "build_setup"), (weights, "sha256")):
        monkeypatch.setattr(module, function, lambda *_: pytest.fail("it was begun"), raising=False)
    call = {inverter: inverter.portable}.get(train, train.run)
    options = {} if train is output_head else {"data": tmp_path / "data"}
    with lock(ctx.run / train.NAME, train.NAME), pytest.raises(UserError, match=f"in use by stage {train.NAME}"):
        call(ctx, **options)
