"""A training knows what it was started with: what would make it wrong is refused, the rest is said."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.loop import Loop
from pipeline.training.state import State


def state(path: Path, recipe: dict, settings: dict) -> State:
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    return State(path, {"net": net}, {"adam": torch.optim.Adam(net.parameters())}, recipe, settings)


def test_each_difference_is_refused_or_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "checkpoint.safetensors"
    assert not state(path, {"seed": 0}, {}).resume()
    state(path, {"seed": 0, "layers": (1, 2), "generator": "ab"}, {"rate": 0.1, "data": "3 images"}).save(1)
    same = state(path, {"seed": 0, "layers": (1, 2), "generator": "ab"}, {"rate": 0.1, "data": "3 images"})
    assert same.resume() and same.changed == ()
    with pytest.raises(
        UserError, match="was started with generator ab, not cd, with seed 0, not 1; name another"
    ) as fault:
        state(path, {"seed": 1, "generator": "cd"}, {}).resume()
    assert fault.value.status == 2
    later = state(path, {"seed": 0, "new": 3}, {"rate": 0.2, "data": "4 images", "newer": 5})  # recorded from now on
    assert later.resume() and later.step == 1
    with Loop.of("train", later, 1):
        pass
    assert [line for line in capsys.readouterr().err.splitlines() if " was " in line] == [
        f"train: {name} was {old}, is {new}; it resumes so: name another folder with --run to start anew"
        for name, old, new in (("data", "'3 images'", "'4 images'"), ("rate", "0.1", "0.2"))
    ]
    assert checkpoint.meta(path)["settings"] == {"rate": 0.2, "data": "4 images", "newer": 5}


def test_a_file_that_is_no_checkpoint_of_a_training_is_told(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"net.weight": torch.zeros(1)}, {"what": "weights for a profile"})
    sound = {"recipe": {}, "step": 1, "seconds": 1.0}
    for name, odd in (("recipe", []), ("step", "1"), ("seconds", None), ("extra", 3), ("settings", [1]), ("what", 0)):
        checkpoint.save(path, {"net.weight": torch.zeros(1)}, sound | {name: odd} if name != "what" else {name: odd})
        with pytest.raises(UserError, match="not the checkpoint of a training"):
            state(path, {}, {}).resume()
