"""Fine-tuning the generator: what trains and what stays, the published layouts, going on after a kill."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.discriminators.image import ImageDiscriminator
from models.generators import mobilestylegan
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.stylegan2 import StyleGAN2
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import load
from pipeline.training import checkpoint, loop
from stages.loaders import generator as generators
from stages.preprocess import compatibility, latents
from stages.pretrain import generator as finetune_generator
from tests.support import pretrainings, small_run

STEPS = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("finetune")
    for i, name in enumerate(("content", "style")):
        pretrainings.write_pictures(base / "data" / name, 3, i)
    return base


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_generator, "SAVE_EVERY", 2)
    monkeypatch.setattr(finetune_generator, "WARM_UP", 1)
    monkeypatch.setattr(finetune_generator, "PENALTY_EVERY", 2)


def train(ctx: Context, base: Path, **options: object) -> dict[str, torch.Tensor]:
    given = {"steps": STEPS, "batch": 3, "data": base / "data"} | options
    assert finetune_generator.run(ctx, **given) == 0  # type: ignore[arg-type]
    return pretrainings.saved(ctx.run / finetune_generator.NAME / "checkpoint.safetensors")


def test_the_generator_trains_its_mapping_stays(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ctx = pretrainings.stylegan2_context(base, "whole", monkeypatch)
    before, state = pretrainings.saved(base / "stylegan2.safetensors"), train(ctx, base)
    output = ctx.run / finetune_generator.NAME / "generator.safetensors"
    after, meta = checkpoint.load(output)
    assert after.keys() == before.keys() and meta["steps"] == STEPS
    still = {name for name in before if torch.equal(before[name], after[name])}
    fixed = ("style.", "latent_avg", "noises.")
    assert {name for name in still if not name.endswith("kernel")} == {n for n in before if n.startswith(fixed)}
    assert all(torch.equal(state[f"average.{name}"], t) for name, t in after.items() if name != "latent_avg")
    assert not any(torch.equal(state[f"net.{name}"], after[name]) for name in before.keys() - still)  # it lags
    rows = pretrainings.log(output.parent)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row.keys() - {"step"} for row in rows[:2]] == [
        {"adversarial", "discriminator", "r1"}, {"adversarial", "discriminator"}]  # fmt: skip
    assert (output.parent / "faces.png").exists()
    # The profile can name it, and latents made with the source are refused then.
    assert f'generator.weights = "{output}"' in capsys.readouterr().out
    tuned = dataclasses.replace(
        ctx,
        profile=dataclasses.replace(
            ctx.profile,
            inverter=dataclasses.replace(ctx.profile.inverter, weights=""),
            generator=dataclasses.replace(ctx.profile.generator, weights=str(output)),
        ),
    )
    assert isinstance(generators.generator(tuned), StyleGAN2) and latents.num_ws(tuned) == 10
    made = {"latents": {"generator": [ctx.profile.generator.weights, "0" * 64]}}
    with pytest.raises(UserError, match="its latents are of generator"):
        compatibility.refuse_others(tuned, made, base)


def test_killed_in_mid_run_it_ends_the_same(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = pretrainings.stylegan2_context(base, "killed", monkeypatch)
    pretrainings.kill_at(monkeypatch, finetune_generator, 4, lambda: train(ctx, base, stay=1.0))
    assert checkpoint.load(ctx.run / finetune_generator.NAME / "checkpoint.safetensors")[1]["step"] == 2
    again = train(ctx, base, stay=1.0)
    whole = pretrainings.stylegan2_context(base, "stay", monkeypatch)
    pretrainings.assert_same(again, train(whole, base, stay=1.0))
    ours, theirs = (pretrainings.log(c.run / finetune_generator.NAME) for c in (ctx, whole))
    assert ours == theirs and ours[0]["stay"] == 0 and ours[1]["stay"] > 0
    with pytest.raises(UserError, match=r"was started with stay 1.0, not 0.0; name another folder with --run"):
        train(ctx, base)


def test_a_run_knows_its_generator_and_its_pictures_by_their_content(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ctx = pretrainings.stylegan2_context(base, "known", monkeypatch)
    train(ctx, base, steps=0)
    data = Path(shutil.copytree(base / "data", tmp_path / "moved"))
    copied = shutil.copyfile(base / "stylegan2.safetensors", tmp_path / "copied.safetensors")

    def named(place: Path) -> Context:
        section = dataclasses.replace(ctx.profile.generator, weights=str(place))
        return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, generator=section))

    capsys.readouterr()
    train(named(copied), base, data=data, steps=0)
    assert "was" not in capsys.readouterr().err
    pretrainings.write_pictures(data / "style", 1, 5)
    train(ctx, base, data=data, steps=0)
    told = capsys.readouterr().err.splitlines()
    assert re.search(r"style was '3 images \w{12}', is '3 images \w{12}'; it resumes so: ", told[0])
    assert len([line for line in told if " was " in line]) == 1
    other = pretrainings.saved(copied)
    other["to_rgb1.bias"] += 1
    checkpoint.save(copied, other, {})
    with pytest.raises(UserError, match=r"was started with generator \w{64}, not \w{64}; name another folder") as fault:
        train(named(copied), base, steps=0)
    assert fault.value.status == 2


def test_the_mapping_trains_when_asked_and_the_average_latent_follows(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "AVERAGED", 100)
    ctx = pretrainings.stylegan2_context(base, "mapping", monkeypatch)
    output = base / "mapped.safetensors"
    train(ctx, base, mapping=True, steps=1, output=output)
    before, after = pretrainings.saved(base / "stylegan2.safetensors"), pretrainings.saved(output)
    assert not torch.equal(before["style.1.weight"], after["style.1.weight"])
    net = StyleGAN2.load(after)
    assert net.latent_avg is not None and torch.allclose(net.latent_avg, net.mean_latent(100, ctx.profile.seed))


def test_a_published_discriminator_is_a_start(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = pretrainings.stylegan2_context(base, "discriminator", monkeypatch)
    torch.manual_seed(5)
    judge = ImageDiscriminator(pretrainings.SIDE, channels=[8] * 5, stddev=True)
    own = {
        n.replace(".conv.weight", ".0.weight") if n.startswith("convs.0") else n: t
        for n, t in judge.state_dict().items()
    }
    torch.save({"g_ema": pretrainings.saved(base / "stylegan2.safetensors"), "d": own}, base / "trained.pt")
    monkeypatch.setattr(finetune_generator, "train_step", lambda *given: {})
    state = train(ctx, base, discriminator=f"{base}/trained.pt", steps=1)
    for name, tensor in judge.state_dict().items():
        assert torch.equal(state[f"discriminator.{name}"], tensor)
    torch.save({"g_ema": pretrainings.saved(base / "stylegan2.safetensors")}, base / "bare.pt")
    with pytest.raises(UserError, match="holds no image discriminator"):
        train(ctx, base, discriminator=f"{base}/bare.pt")
    larger = ImageDiscriminator(128, channels=[8] * 6)
    checkpoint.save(base / "larger.safetensors", larger.state_dict(), {})
    with pytest.raises(UserError, match="takes 128 px, profile paper256 generates 64 px"):
        train(ctx, base, discriminator=f"{base}/larger.safetensors")


def test_not_finite_steps_change_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = pretrainings.stylegan2_context(base, "nan", monkeypatch)
    monkeypatch.setattr(finetune_generator.adversarial, "generator_loss", lambda fake: fake.mean() * float("nan"))
    monkeypatch.setattr(loop, "SKIPS", 3)
    with pytest.raises(UserError, match="3 steps in a row were not finite"):
        train(ctx, base)
    state = pretrainings.saved(ctx.run / finetune_generator.NAME / "checkpoint.safetensors")
    before = pretrainings.saved(base / "stylegan2.safetensors")
    assert all(torch.equal(state[f"net.{name}"], t) for name, t in before.items() if name != "latent_avg")


def test_style_mixing_is_of_two_faces() -> None:
    net = small_run.generator()
    z = torch.randn(2, 2, 512)
    w = finetune_generator.latents(net, z, torch.tensor([7, net.num_ws]))
    both = net.map(z.flatten(0, 1)).reshape(2, 2, 512)
    assert torch.equal(w[0, :7], both[0, 0].expand(7, -1)) and torch.equal(w[0, 7:], both[0, 1].expand(11, -1))
    assert torch.equal(w[1], both[1, 0].expand(18, -1))


def test_samples_do_not_depend_on_how_many_processes_share_them(base: Path) -> None:
    from pipeline.images import Folder

    photos = {name: Folder(base / "data" / name, 32) for name in ("content", "style")}
    whole = finetune_generator.sample_batch(photos, 0, 3, range(4), 18)
    parts = [finetune_generator.sample_batch(photos, 0, 3, range(r, 4, 2), 18) for r in (0, 1)]
    for r in (0, 1):
        assert np.array_equal(whole.real[r::2], parts[r].real) and torch.equal(whole.z[r::2], parts[r].z)
        assert torch.equal(whole.cross[r::2], parts[r].cross)
    assert not torch.equal(whole.z, finetune_generator.sample_batch(photos, 0, 4, range(4), 18).z)


@pytest.mark.weights
def test_mobilestylegan_is_written_with_its_head(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilestylegan, "WIDTHS", small_run.WIDTHS)
    net = small_run.generator()
    full = MobileStyleGAN(1024)
    source = {mobilestylegan._published(n): torch.full_like(t, 0.5) for n, t in full.state_dict().items()}
    own, head = net.published(
        source | {mobilestylegan._published(n): t for n, t in net.state_dict().items() if not n.startswith("head.")}
    )
    assert own.keys() == source.keys()
    checkpoint.save(base / "mobile.safetensors", own, {})
    checkpoint.save(base / "mobile-head.safetensors", head, {})
    portable = load("portable")
    generator = dataclasses.replace(
        portable.generator, weights=f"{base}/mobile.safetensors", head=f"{base}/mobile-head.safetensors"
    )
    ctx = Context(
        dataclasses.replace(
            portable, generator=generator, train=dataclasses.replace(portable.train, image_discriminator_base=256)
        ),
        run=base / "runs" / "mobile",
    )
    output = base / "tuned.safetensors"
    train(ctx, base, steps=1, batch=1, output=output)
    after = MobileStyleGAN.load(pretrainings.saved(output), pretrainings.saved(base / "tuned-head.safetensors"))
    moved = {name for name, t in net.state_dict().items() if not torch.equal(t, after.state_dict()[name])}
    late = {name for name in net.state_dict() if name.startswith(("layers.3.", "layers.4.", "head."))}
    assert moved >= late and not any(name.startswith("mapping.") for name in moved)
    assert torch.equal(pretrainings.saved(output)["to_img.weight"], source["to_img.weight"])  # of the 1024 px form


def test_another_generator_has_no_such_training(base: Path) -> None:
    with pytest.raises(UserError, match="finetune-generator works with stylegan2 or mobilestylegan") as fault:
        finetune_generator.run(pretrainings.other_kind(), data=base / "data")
    assert fault.value.status == 2
