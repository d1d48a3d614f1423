"""The methods that are compared: how they are named, and which weights they take."""

from pathlib import Path

import pytest

from pipeline import profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.evaluate.methods import METHODS, chosen, trained_folder


def test_the_parts_of_a_method_are_of_one_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = Context(profile.load("tiny"), run=tmp_path / "run")
    published = ["adain-vgg19", "sanet-decoder", "sanet-transformer"]
    shipped = ["adain-vgg19", "portable-sanet-decoder", "portable-sanet-transformer"]
    for here, taken in ((published, published), (published[:2], shipped), (shipped, shipped), ([], published)):
        monkeypatch.setattr(weights, "local", lambda name, here=here: name in here or (name in shipped and here))
        assert METHODS["sanet"].weights(ctx) == taken
    own = trained_folder(ctx, "sanet")
    own.mkdir(parents=True)
    for name in published[1:]:
        (own / f"{name}.safetensors").touch()
    assert METHODS["sanet"].weights(ctx) == [published[0], *(f"{own}/{name}.safetensors" for name in published[1:])]


def test_methods_are_chosen_by_name() -> None:
    assert list(chosen(["hypernst", "sanet"])) == ["sanet", "hypernst"]
    with pytest.raises(UserError, match="'sannet' is no method; expected some of unstylised, adain, sae, gatys"):
        chosen(["sannet"])
