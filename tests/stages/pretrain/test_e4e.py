"""Training e4e: num_ws are unlocked one by one, its file is taken by what loads e4e, a kill changes nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import irse
from models.discriminators.latent import LatentDiscriminator
from models.encoders import e4e
from models.encoders.e4e import Encoder4Editing
from models.metrics.identity import Identity
from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.loaders import identity as identities
from stages.loaders import inversion as inversions
from stages.pretrain import e4e as train_e4e
from stages.pretrain import inverter
from stages.weights_import import identify
from stages.weights_import.structure import structure
from tests.support import pretrainings

pytestmark = pytest.mark.weights  # LPIPS
STEPS = 4
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("e4e")
    pretrainings.write_pictures(base / "data", 4)
    return base


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irse, "UNITS", ((16, 3), (16, 4), (16, 14), (16, 3)))
    monkeypatch.setattr(e4e, "WIDTH", 16)
    monkeypatch.setattr(train_e4e, "SAVE_EVERY", 2)
    monkeypatch.setattr(train_e4e, "WARM_UP", 1)
    monkeypatch.setattr(train_e4e, "MEASURED", 4)
    monkeypatch.setattr(train_e4e, "PENALTY_EVERY", 2)
    monkeypatch.setattr(train_e4e, "unlocked", lambda step, every, num_ws: min(num_ws, 1 + step // every))


def train(ctx: Context, base: Path, **options: object) -> dict[str, torch.Tensor]:
    given = {"steps": STEPS, "batch": 2, "unlock": 2} | options
    assert inverter.run(ctx, data=base / "data", **given) == 0  # type: ignore[arg-type]
    return pretrainings.saved(ctx.run / "train-inverter" / "checkpoint.safetensors")


def tuned(ctx: Context, **train: object) -> Context:
    return dataclasses.replace(
        ctx, profile=dataclasses.replace(ctx.profile, train=dataclasses.replace(ctx.profile.train, **train))
    )


def arcface(base: Path) -> str:
    torch.manual_seed(1)
    state = {
        n: torch.rand(t.shape) if n.endswith("running_var") else torch.randn(t.shape) * 0.1
        for n, t in Identity().state_dict().items()
        if not n.endswith("num_batches_tracked")
    }
    checkpoint.save(base / "arcface.safetensors", state, {})
    return f"{base}/arcface.safetensors"


def test_the_encoder_trains_and_its_file_is_an_e4e_encoder(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ctx = pretrainings.stylegan2_context(base, "whole", monkeypatch)
    half, state = train(ctx, base, steps=2), train(ctx, base)
    output = ctx.run / "train-inverter" / "e4e.safetensors"
    assert f'inverter.weights = "{output}"' in capsys.readouterr().out
    part = identify.read(output)[0]
    structure(part.kind, part.tensors)
    assert str(part) == "e4e encoder (styles 10)"
    net = e4e.load(pretrainings.saved(output))
    average = pretrainings.saved(base / "stylegan2.safetensors")["latent_avg"]
    assert isinstance(net, Encoder4Editing) and net.latent_avg is not None
    assert torch.equal(net.latent_avg, average[None])
    x = images.to_tensor(images.Folder(base / "data", 256)[0])
    # Two num_ws were free in the last steps; what is locked repeats the first although all heads are read now.
    latent = net(x)
    assert torch.equal(latent, net.codes(x, 2) + average)
    assert torch.equal(latent[:, 2:], latent[:, :1].expand(-1, 8, -1)) and not torch.equal(latent[:, 1], latent[:, 0])
    moved = {
        name.removeprefix("net.")
        for name in state
        if name.startswith("net.") and not torch.equal(half[name], state[name])
    }
    locked = tuple(f"styles.{i}." for i in range(2, 10))
    assert not any(name.endswith(STATISTICS) or name.startswith(locked) for name in moved)
    assert moved >= {n for n in net.state_dict() if n.startswith(("styles.0.", "styles.1.", "input_layer.0."))}
    rows = pretrainings.log(output.parent)
    assert [row["num_ws"] for row in rows] == [1, 1, 2, 2] and rows[0]["delta"] == 0
    assert [row.keys() - {"step", "num_ws"} for row in rows[:2]] == [
        {"l2", "lpips", "delta", "adversarial", "discriminator", "r1"},
        {"l2", "lpips", "delta", "adversarial", "discriminator"},
    ]
    # The profile that names it inverts with it, and training goes on from it.
    named = dataclasses.replace(
        ctx,
        run=base / "runs" / "on",
        profile=dataclasses.replace(
            ctx.profile, inverter=dataclasses.replace(ctx.profile.inverter, weights=str(output))
        ),
    )
    assert torch.allclose(inversions.inversion(named)(x), latent)
    monkeypatch.setattr(train_e4e, "train_step", lambda *given: {})
    again = train(named, base, steps=1)
    assert all(torch.equal(again[f"net.{name}"], t) for name, t in net.state_dict().items())


def test_killed_in_mid_run_it_ends_the_same(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pretrainings.stylegan2_context(base, "killed", monkeypatch)
    ctx = tuned(plain, identity=0.1, identity_weights=arcface(base))
    pretrainings.kill_at(monkeypatch, train_e4e, 4, lambda: train(ctx, base))
    assert checkpoint.load(ctx.run / "train-inverter" / "checkpoint.safetensors")[1]["step"] == 2
    whole = dataclasses.replace(ctx, run=base / "runs" / "identity")
    pretrainings.assert_same(train(ctx, base), train(whole, base))
    ours, theirs = (pretrainings.log(c.run / "train-inverter") for c in (ctx, whole))
    assert ours == theirs and all(row["identity"] > 0 for row in ours)
    with pytest.raises(UserError, match=r"was started with identity 0.1, not 0.0"):
        train(plain, base)
    known = checkpoint.load(ctx.run / "train-inverter" / "checkpoint.safetensors")[1]
    assert known["settings"]["data"].startswith("4 images ") and len(known["recipe"]["generator"]) == 64


def test_the_body_starts_from_arcface_with_statistics_of_whole_pictures(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = tuned(pretrainings.stylegan2_context(base, "", monkeypatch), identity_weights=arcface(base))
    net, start = inversions.new_encoder(ctx, 10)
    body = Identity.load(pretrainings.saved(base / "arcface.safetensors")).state_dict()
    assert start == ctx.profile.train.identity_weights
    assert all(torch.equal(net.state_dict()[n], t) for n, t in body.items() if not n.startswith("output_layer."))
    assert identities.identity(ctx) is None
    photos = images.Folder(base / "data", 256)
    net.eval()
    train_e4e.measure(net, photos, 0)
    x = images.to_tensor(np.stack([photos[i] for i in range(4)]))
    first = net.input_layer[0](x)
    torch.testing.assert_close(net.state_dict()["input_layer.1.running_mean"], first.mean((0, 2, 3)).detach())
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net(x) if net.latent_avg is not None else net.codes(x)
    pretrainings.assert_same(before, net.state_dict())  # they are fixed from then on


def test_progress_is_e4es() -> None:
    schedule = [e4e.unlocked(step, 2000, 18) for step in (0, 19_999, 20_000, 21_999, 22_000, 51_999, 52_000, 10**6)]
    assert schedule == [1, 1, 2, 2, 3, 17, 18, 18]
    discriminator = LatentDiscriminator()
    assert discriminator(torch.randn(5, 512)).shape == (5, 1)


def test_samples_do_not_depend_on_how_many_processes_share_them(base: Path) -> None:
    photos = images.Folder(base / "data", 32)
    whole = train_e4e.sample_batch(photos, 0, 3, range(4))
    for rank in (0, 1):
        part = train_e4e.sample_batch(photos, 0, 3, range(rank, 4, 2))
        assert np.array_equal(whole.real[rank::2], part.real) and torch.equal(whole.z[rank::2], part.z)


def test_wrong_use_is_said_so(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = pretrainings.stylegan2_context(base, "wrong", monkeypatch)
    with pytest.raises(UserError, match="the encoder of a stylegan2 generator has no --images"):
        inverter.run(ctx, data=base / "data", images=3)
    with pytest.raises(UserError, match=r"train.identity is 0.1; name its network in train.identity_weights"):
        identities.identity(tuned(ctx, identity=0.1))
    checkpoint.save(base / "other.safetensors", Encoder4Editing(14).state_dict(), {})
    other = dataclasses.replace(
        ctx,
        profile=dataclasses.replace(
            ctx.profile, inverter=dataclasses.replace(ctx.profile.inverter, weights=f"{base}/other.safetensors")
        ),
    )
    with pytest.raises(UserError, match=r"gives 14 latents but generator .* takes 10"):
        train(other, base)
