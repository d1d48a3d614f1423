"""The short trainings behind the shipped weights run, save what the other stages load, and go on where they stopped."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from models import inverter, irse
from models.identity import Identity
from models.inverter import Inverter
from models.mobilestylegan import Head256
from pipeline import checkpoint, profile
from pipeline.context import Context
from pipeline.errors import Fault
from stages import fit_head, networks, train_inverter
from tests import courses, small

pytestmark = pytest.mark.weights


STEPS = 4


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(networks, "generator", small.generator)
    monkeypatch.setattr(inverter, "RANK", 8)  # of the linear path; the full one takes seconds to solve
    monkeypatch.setattr(inverter, "Refiner", functools.partial(inverter.Refiner, 16, 16))
    monkeypatch.setattr(train_inverter, "MAPPED", 100)
    monkeypatch.setattr(train_inverter, "RIDGES", (0.1, 1.0))
    monkeypatch.setattr(train_inverter, "SAVE_EVERY", 2)
    monkeypatch.setattr(train_inverter, "DRAWN", 1)
    monkeypatch.setattr(train_inverter, "REAL", 1)
    return Context(profile.load("portable"), run=tmp_path / "run")


def meta(path: Path) -> dict:
    return checkpoint.load(path)[1]


def test_the_inverter_is_solved_then_trained_then_goes_on(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = courses.write_pictures(tmp_path / "data", 2)

    def train(run: str, **options: object) -> Path:
        output = tmp_path / f"{run}.safetensors"
        train_inverter.run(dataclasses.replace(ctx, run=tmp_path / run), data=data, images=12, output=output, **options)
        return output

    linear = Inverter.load(checkpoint.load(train("linear", minutes=0))[0])
    assert linear.refiner is None and meta(tmp_path / "linear.safetensors")["steps"] == 0
    assert bool(linear.expand.weight.any())
    metric = linear.metric
    assert metric is not None and metric.vectors.shape == (3, 14 * 512) and bool((metric.values.diff() <= 0).all())
    assert torch.allclose(metric.vectors @ metric.vectors.T, torch.eye(3), atol=1e-2)
    courses.kill_at(monkeypatch, train_inverter, 4, lambda: train("killed", steps=STEPS))
    state = tmp_path / "killed" / "train-inverter" / "checkpoint.safetensors"
    assert meta(state)["step"] == 2 and not (tmp_path / "killed.safetensors").exists()
    assert "unexplained variance" in capsys.readouterr().err
    parts = train("killed", steps=STEPS)
    assert "unexplained variance" not in capsys.readouterr().err  # it is not solved again
    whole = train("whole", steps=STEPS)
    courses.assert_same(courses.saved(state), courses.saved(
        tmp_path / "whole" / "train-inverter" / "checkpoint.safetensors"))
    courses.assert_same(courses.saved(parts), courses.saved(whole))
    rows = courses.log(state.parent)
    assert rows == courses.log(tmp_path / "whole" / "train-inverter") and [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row.keys() == {"step", "latent", "lpips", "l2"} for row in rows) and meta(whole)["steps"] == STEPS
    trained = Inverter.load(courses.saved(whole))
    assert trained.refiner is not None and bool(trained.refiner.base.bias.any())


def test_the_profile_may_weigh_identity(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irse, "UNITS", ((16, 3), (16, 4), (16, 14), (16, 3)))
    monkeypatch.setattr(train_inverter, "solve", lambda *given: None)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "arcface.safetensors", Identity().state_dict(), {})
    settings = dataclasses.replace(ctx.profile.train, identity=0.5, identity_weights=f"{tmp_path}/arcface.safetensors")
    seen = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, train=settings))
    data = courses.write_pictures(tmp_path / "data", 1)
    found = []
    for own in (seen, ctx):
        run = tmp_path / f"weight{own.profile.train.identity:g}"
        train_inverter.run(dataclasses.replace(own, run=run), data=data, steps=1, output=run / "out.safetensors")
        found.append((courses.log(run / "train-inverter")[0], courses.saved(run / "out.safetensors")))
    (with_it, moved), (without, plain) = found
    assert with_it.pop("identity") > 0 and with_it == without  # the first step sees the same network
    assert not torch.equal(moved["refiner.base.weight"], plain["refiner.base.weight"])


def test_an_inverter_is_of_the_profiles_kind(ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"generator\.kind 'other'; expected one of mobilestylegan, stylegan2"):
        train_inverter.run(courses.other_kind(), data=tmp_path)
    with pytest.raises(Fault, match="the encoder of a mobilestylegan generator has no --unlock"):
        train_inverter.run(ctx, data=tmp_path, unlock=3)


def drawn(_: object, seed: int) -> fit_head.Pair:
    """Stands in for a face at 1024 px, which takes seconds to draw."""
    rng = torch.Generator().manual_seed(seed)
    shapes = ((1, 256, 128, 128), (1, 18, 512), (1, 3, 256, 256))
    features, latent, picture = (torch.randn(shape, generator=rng) for shape in shapes)
    return features.half(), latent, picture.clamp(-1, 1).half()


@pytest.fixture
def few_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_head, "HELD_OUT", 1)
    monkeypatch.setattr(fit_head, "BATCH", 2)
    monkeypatch.setattr(fit_head, "draw_pair", drawn)


@pytest.mark.usefixtures("few_faces")
def test_the_heads_fit_is_saved_with_its_own_measure(tmp_path: Path) -> None:
    output = tmp_path / "head.safetensors"
    fit_head.run(Context(profile.load("portable"), run=tmp_path), steps=3, images=1, output=output)
    tensors, told = checkpoint.load(output)
    head = Head256()
    head.load_state_dict({name: t.float() for name, t in tensors.items()})
    again = fit_head.evaluate(head, [drawn(None, 0)])
    assert told["held_out"] == 1 and abs(again - told["held_out_psnr_db"]) < 0.2  # but for the halves it is saved in


@pytest.mark.usefixtures("few_faces")
def test_a_killed_fit_of_the_head_comes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_head, "SAVE_EVERY", 2)

    def run(name: str) -> Path:
        ctx = Context(profile.load("portable"), run=tmp_path / name)
        fit_head.run(ctx, steps=STEPS, images=2, shipped=False, output=tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    whole = courses.saved(run("whole"))
    courses.kill_at(monkeypatch, fit_head, 4, lambda: run("killed"))
    assert meta(tmp_path / "killed" / fit_head.NAME / "checkpoint.safetensors")["step"] == 2
    courses.assert_same(courses.saved(run("killed")), whole)
    assert [row["step"] for row in courses.log(tmp_path / "killed" / fit_head.NAME)] == [1, 2, 3, 4]


def test_another_generator_has_no_cut_to_fit() -> None:
    with pytest.raises(Fault, match="profile tiny uses stylegan2") as fault:
        fit_head.run(Context(profile.load("tiny")))
    assert fault.value.status == 2
