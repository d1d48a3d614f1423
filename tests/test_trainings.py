"""The short trainings behind the shipped weights run, save what the other stages load, and go on where they stopped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models import inverter
from models.inverter import Inverter
from models.mobilestylegan import Head256
from pipeline import checkpoint, pictures, profile
from pipeline.context import Context
from pipeline.errors import Fault
from stages import fit_head, networks, train_inverter
from tests import small

pytestmark = pytest.mark.weights


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(networks, "generator", small.generator)
    monkeypatch.setattr(inverter, "RANK", 8)  # of the linear path; the full one takes seconds to solve
    return Context(profile.load("portable"), run=tmp_path / "run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(2):
        rgb = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        (tmp_path / f"{i}.png").write_bytes(pictures.encode(rgb))
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Time stands still but for a step's ten seconds."""
    now = [0.0]
    step = train_inverter.train_step

    def timed(*given: object, **options: object) -> dict[str, float]:
        now[0] += 10
        return step(*given, **options, drawn=1, real=1)  # type: ignore[arg-type]

    monkeypatch.setattr(train_inverter, "train_step", timed)
    monkeypatch.setattr(train_inverter.time, "monotonic", lambda: now[0])
    yield now


def meta(path: Path) -> dict:
    return checkpoint.load(path)[1]


def test_the_inverter_is_solved_then_trained_then_goes_on(
    ctx: Context, data: Path, tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture
) -> None:
    parts = tmp_path / "inverter.safetensors"
    train_inverter.run(ctx, data=data, minutes=0, faces=12, output=parts)
    linear = Inverter.load(checkpoint.load(parts)[0])
    assert linear.refiner is None and meta(parts)["steps"] == 0 and bool(linear.expand.weight.any())
    train_inverter.run(ctx, data=data, minutes=0.2, faces=12, output=parts)
    assert meta(parts)["steps"] == 2
    trained = Inverter.load(checkpoint.load(parts)[0])
    assert trained.refiner is not None and bool(trained.refiner.base.bias.any())
    capsys.readouterr()
    train_inverter.run(ctx, data=data, minutes=0.4, faces=12, output=parts)
    assert meta(parts)["steps"] == 3 and "drawn" not in capsys.readouterr().out  # two of its three steps were there


def drawn(_: object, seed: int) -> fit_head.Pair:
    """Stands in for a face at 1024 px, which takes seconds to draw."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((1, 256, 128, 128), (1, 18, 512), (1, 3, 256, 256))
    features, latent, picture = (torch.randn(shape, generator=rng) for shape in shapes)
    return features.half(), latent, picture.clamp(-1, 1).half()


def test_the_heads_fit_is_saved_with_its_own_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_head, "HELD_OUT", 1)
    monkeypatch.setattr(fit_head, "draw_pair", drawn)
    output = tmp_path / "head.safetensors"
    fit_head.run(Context(profile.load("portable"), run=tmp_path), minutes=0.01, images=1, output=output)
    tensors, told = checkpoint.load(output)
    head = Head256()
    head.load_state_dict({name: t.float() for name, t in tensors.items()})
    again = fit_head.evaluate(head, [drawn(None, 0)])
    assert told["held_out"] == 1 and abs(again - told["held_out_psnr_db"]) < 0.2  # but for the halves it is saved in


def test_another_generator_has_no_cut_to_fit() -> None:
    with pytest.raises(Fault, match="profile tiny uses stylegan2") as fault:
        fit_head.run(Context(profile.load("tiny")))
    assert fault.value.status == 2
