"""The short trainings behind the shipped weights run, save what the other stages load, and go on where they stopped."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from models.backbones import irse
from models.encoders import portable
from models.encoders.portable import PortableEncoder
from models.generators.mobilestylegan import Head256
from models.metrics.identity import Identity
from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.loaders import generator as networks
from stages.pretrain import inverter, output_head
from tests.support import pretrainings, small_run

pytestmark = pytest.mark.weights


STEPS = 4


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(networks, "generator", small_run.generator)
    monkeypatch.setattr(portable, "RANK", 8)  # of the linear path; the full one takes seconds to solve
    monkeypatch.setattr(portable, "Refiner", functools.partial(portable.Refiner, 16, 16))
    monkeypatch.setattr(inverter, "MAPPED", 100)
    monkeypatch.setattr(inverter, "RIDGES", (0.1, 1.0))
    monkeypatch.setattr(inverter, "SAVE_EVERY", 2)
    monkeypatch.setattr(inverter, "DRAWN", 1)
    monkeypatch.setattr(inverter, "REAL", 1)
    return Context(profile.load("portable"), run=tmp_path / "run")


def meta(path: Path) -> dict:
    return checkpoint.load(path)[1]


def test_the_inverter_is_solved_then_trained_then_goes_on(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = pretrainings.write_pictures(tmp_path / "data", 2)

    def train(run: str, **options: object) -> Path:
        output = tmp_path / f"{run}.safetensors"
        inverter.run(dataclasses.replace(ctx, run=tmp_path / run), data=data, images=12, output=output, **options)
        return output

    linear = PortableEncoder.load(checkpoint.load(train("linear", minutes=0))[0])
    assert linear.refiner is None and meta(tmp_path / "linear.safetensors")["steps"] == 0
    assert bool(linear.expand.weight.any())
    metric = linear.metric
    assert metric is not None and metric.vectors.shape == (3, 14 * 512) and bool((metric.values.diff() <= 0).all())
    assert torch.allclose(metric.vectors @ metric.vectors.T, torch.eye(3), atol=1e-2)
    pretrainings.kill_at(monkeypatch, inverter, 4, lambda: train("killed", steps=STEPS))
    state = tmp_path / "killed" / "train-inverter" / "checkpoint.safetensors"
    assert meta(state)["step"] == 2 and not (tmp_path / "killed.safetensors").exists()
    assert "unexplained variance" in capsys.readouterr().err
    pretrainings.write_pictures(data, 1, 5)
    parts = train("killed", steps=STEPS, minutes=1e-9)
    assert "data was '2 images " in capsys.readouterr().err
    pretrainings.write_pictures(data, 1)
    parts = train("killed", steps=STEPS)
    assert "unexplained variance" not in capsys.readouterr().err  # it is not solved again
    whole = train("whole", steps=STEPS)
    pretrainings.assert_same(
        pretrainings.saved(state), pretrainings.saved(tmp_path / "whole" / "train-inverter" / "checkpoint.safetensors")
    )
    pretrainings.assert_same(pretrainings.saved(parts), pretrainings.saved(whole))
    rows = pretrainings.log(state.parent)
    assert rows == pretrainings.log(tmp_path / "whole" / "train-inverter")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row.keys() == {"step", "latent", "lpips", "l2"} for row in rows) and meta(whole)["steps"] == STEPS
    trained = PortableEncoder.load(pretrainings.saved(whole))
    assert trained.refiner is not None and bool(trained.refiner.base.bias.any())


def test_the_profile_may_weigh_identity(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irse, "UNITS", ((16, 3), (16, 4), (16, 14), (16, 3)))
    monkeypatch.setattr(inverter, "solve", lambda *given: None)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "arcface.safetensors", Identity().state_dict(), {})
    settings = dataclasses.replace(ctx.profile.train, identity=0.5, identity_weights=f"{tmp_path}/arcface.safetensors")
    seen = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, train=settings))
    data = pretrainings.write_pictures(tmp_path / "data", 1)
    found = []
    for own in (seen, ctx):
        run = tmp_path / f"weight{own.profile.train.identity:g}"
        inverter.run(dataclasses.replace(own, run=run), data=data, steps=1, output=run / "out.safetensors")
        found.append((pretrainings.log(run / "train-inverter")[0], pretrainings.saved(run / "out.safetensors")))
    (with_it, moved), (without, plain) = found
    assert with_it.pop("identity") > 0 and with_it == without  # the first step sees the same network
    assert not torch.equal(moved["refiner.base.weight"], plain["refiner.base.weight"])


def test_an_inverter_is_of_the_profiles_kind(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generator.kind is 'other', but train-inverter works with mobilestylegan"):
        inverter.run(pretrainings.other_kind(), data=tmp_path)
    with pytest.raises(UserError, match="the encoder of a mobilestylegan generator has no --unlock"):
        inverter.run(ctx, data=tmp_path, unlock=3)


def drawn(_: object, seed: int) -> output_head.Pair:
    """Stands in for a face at 1024 px, which takes seconds to draw."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((1, 256, 128, 128), (1, 18, 512), (1, 3, 256, 256))
    features, latent, picture = (torch.randn(shape, generator=rng) for shape in shapes)
    return features.half(), latent, picture.clamp(-1, 1).half()


@pytest.fixture
def few_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "HELD_OUT", 1)
    monkeypatch.setattr(output_head, "BATCH", 2)
    monkeypatch.setattr(output_head, "sample_pair", drawn)


@pytest.mark.usefixtures("few_faces")
def test_the_heads_fit_is_saved_with_its_own_measure(tmp_path: Path) -> None:
    output = tmp_path / "head.safetensors"
    output_head.run(Context(profile.load("portable"), run=tmp_path), steps=3, images=1, output=output)
    tensors, told = checkpoint.load(output)
    head = Head256()
    head.load_state_dict({name: t.float() for name, t in tensors.items()})
    again = output_head.evaluate(head, [drawn(None, 0)])
    assert told["held_out"] == 1 and abs(again - told["held_out_psnr_db"]) < 0.2  # but for the halves it is saved in


@pytest.mark.usefixtures("few_faces")
def test_a_killed_fit_of_the_head_comes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "SAVE_EVERY", 2)

    def run(name: str) -> Path:
        ctx = Context(profile.load("portable"), run=tmp_path / name)
        output_head.run(ctx, steps=STEPS, images=2, shipped=False, output=tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    whole = pretrainings.saved(run("whole"))
    pretrainings.kill_at(monkeypatch, output_head, 4, lambda: run("killed"))
    assert meta(tmp_path / "killed" / output_head.NAME / "checkpoint.safetensors")["step"] == 2
    pretrainings.assert_same(pretrainings.saved(run("killed")), whole)
    assert [row["step"] for row in pretrainings.log(tmp_path / "killed" / output_head.NAME)] == [1, 2, 3, 4]


def test_another_generator_has_no_cut_to_fit() -> None:
    with pytest.raises(
        UserError, match=r"generator\.kind is 'stylegan2', but fit-head works with mobilestylegan"
    ) as fault:
        output_head.run(Context(profile.load("tiny")))
    assert fault.value.status == 2
