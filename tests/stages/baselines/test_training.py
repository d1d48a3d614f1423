"""The trainings of the compared methods: they learn, resume bit for bit, and eval takes what they write."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.baselines import artflow as network
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.baselines import attention, pama, run, sae
from stages.evaluate import overview
from stages.evaluate.methods import METHODS, trained_folder
from stages.portraits.portrait import Portrait
from tests.stages import fake_device
from tests.stages.fake_device import fake_gpu
from tests.support import html_pages, pretrainings, small_run

CROPS = {"sanet": 32, "pama": 48, "contraast": 128, "artflow": 16, "sae": 128}
FILES = {
    "sanet": {"sanet-decoder", "sanet-transformer"},
    "contraast": {"contraast-decoder", "contraast-transformer"},
    "pama": {"pama-align1", "pama-align2", "pama-align3", "pama-decoder"},
    "artflow": {"artflow-adain"},
    "sae": {"sae"},
}


def context(base: Path, name: str, **settings: object) -> Context:
    ctx = small_run.context(base, name)
    changed = dataclasses.replace(ctx.profile.baselines, **{"sae_capacity": 0.03, **settings})  # type: ignore[arg-type]
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, baselines=changed))


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SIDE", 1)


def portrait(seed: int, side: int) -> Portrait:
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    empty = np.zeros((256, 256), np.uint8), np.zeros((18, 512), np.float32), np.zeros((4, 256), np.float32)
    return Portrait(str(seed), image, *empty, np.ones(3, bool))


@pytest.mark.weights
@pytest.mark.parametrize("method", CROPS)
def test_a_method_is_trained_and_then_evaluated(method: str, tmp_path: Path) -> None:
    """On a GPU that is not there: a step waits for it only for the gradients of its optimisers, and for its terms."""
    ctx = context(tmp_path, "one", crop=CROPS[method], batch=2)
    small_run.write_shards(ctx, side=CROPS[method])
    before, steps = METHODS[method].weights(ctx), {"sae": 3, "artflow": 2}.get(method, 1)
    with fake_gpu() as gpu:
        assert run.run(dataclasses.replace(ctx, device=fake_device.NAME), method=method, steps=steps) == 0
        flows = network.FLOWS * network.BLOCKS if method == "artflow" else 0  # each asks once whether it is set
        assert gpu.syncs["_local_scalar_dense"] <= 3 * steps + flows, gpu.syncs
    folder = trained_folder(ctx, method)
    rows = pretrainings.log(folder)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows[-1]) > 2 and all(np.isfinite(value) for value in rows[-1].values())
    assert {path.stem for path in folder.glob("*.safetensors")} - {"checkpoint"} == FILES[method]
    assert html_pages.problems(folder / overview.TRAINING) == []
    assert f"baselines/{method}/training.html" in (ctx.run / overview.INDEX).read_text()

    names = METHODS[method].weights(ctx)
    assert {Path(name).stem for name in names if "/" in name} == FILES[method]
    assert {Path(name).stem for name in names} <= {*before, *FILES[method]}
    assert METHODS[method].description(ctx)["note"].startswith("trained by this run, ")
    content, style = (portrait(seed, CROPS[method]) for seed in (1, 2))
    apply = METHODS[method].open(ctx)
    images = [apply(content, style, strength=strength) for strength in (0.0, 1.0)]
    assert images[0].shape == content.image.shape and not np.array_equal(*images)


@pytest.mark.weights
def test_a_training_goes_on_from_the_weights_of_another(tmp_path: Path) -> None:
    parts = ("decoder", "transformer")
    started = attention.ContraAST(context(tmp_path, "one", **{part: f"portable-sanet-{part}" for part in parts}))
    for part in parts:
        ours, theirs = started.weights()[f"contraast-{part}"], weights.tensors(f"portable-sanet-{part}")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert all(one.requires_grad for one in started.nets[part].parameters())


@pytest.mark.weights
@pytest.mark.parametrize("method", ["sanet", "sae"])
def test_a_killed_training_comes_to_the_same_bits(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY", 2)

    def train(name: str) -> Path:
        ctx = context(tmp_path, name, crop=CROPS[method], batch=1)
        if not ctx.shards.exists():
            small_run.write_shards(ctx, side=CROPS[method])
        run.run(ctx, method=method, steps=4)
        return trained_folder(ctx, method) / "checkpoint.safetensors"

    whole = pretrainings.saved(train("whole"))
    pretrainings.kill_at(monkeypatch, run, 4, lambda: train("killed"))
    killed = trained_folder(context(tmp_path, "killed"), method)
    assert checkpoint.meta(killed / "checkpoint.safetensors")["step"] == 2
    pretrainings.assert_same(pretrainings.saved(train("killed")), whole)
    assert [row["step"] for row in pretrainings.log(killed)] == [1, 2, 3, 4]


def test_wrong_settings_are_told(tmp_path: Path) -> None:
    for method, settings, told in (
        ("sanet", {"crop": 40}, "baselines.crop is 40; sanet takes multiples of 16 px from 32"),
        ("pama", {"crop": 16}, "baselines.crop is 16; pama takes multiples of 8 px from 24"),
        ("contraast", {"batch": 1}, "baselines.batch is 1; contraast contrasts at least 2 pairs"),
    ):
        with pytest.raises(UserError, match=told) as fault:
            run.run(context(tmp_path, "wrong", **settings), method=method)
        assert fault.value.status == 2
    with pytest.raises(UserError, match=r"baselines.crop is 144; sae's image discriminator takes a power of two"):
        sae.SAE(context(tmp_path, "wrong", crop=144))
    ctx = context(tmp_path, "wrong", crop=512)
    small_run.write_shards(ctx)
    with pytest.raises(UserError, match=r"baselines.crop is 512 px, but the shards' images have 256 px"):
        run.run(ctx, method="artflow")


def test_the_published_sizes_of_the_swapping_autoencoder() -> None:
    with torch.device("meta"):
        net = sae.new_network(1.0)
    counts = [sum(p.numel() for p in part.parameters()) for part in (net.encoder, net.generator)]
    assert counts == [30_584_872, 25_064_743]


@pytest.mark.weights
@torch.no_grad()
def test_the_attention_starts_as_a_style_swap(tmp_path: Path) -> None:
    """An image in itself is what AdaIN's decoder makes of its features; another style changes them."""
    torch.manual_seed(0)
    net = run.SANet(context(tmp_path, "start")).model
    published = weights.tensors("adain-decoder")
    assert all(torch.equal(t, published[name]) for name, t in net.decoder.state_dict().items())
    small = torch.rand(2, 1, 3, 8, 8)
    content, style = (net.encode(torch.nn.functional.interpolate(x, scale_factor=8)) for x in small)
    torch.testing.assert_close(net.transformer(content, content), content[0], atol=1e-2, rtol=1e-2)
    assert float((net.transformer(content, style) - content[0]).abs().mean()) > 0.1


@pytest.mark.weights
@torch.no_grad()
def test_alignments_start_as_style_swaps(tmp_path: Path) -> None:
    """A picture in itself keeps its features; in another it takes that one's, whose mean and contrast it comes near."""
    ctx = context(tmp_path, "start", crop=128, batch=1)
    small_run.write_shards(ctx, side=128)
    training = run.PAMA(ctx)
    content, style = training.features(ctx)[[0, pama.STARTING]].split(1)
    for align in training.model.alignments:
        own, other = (align(content, x).mean((2, 3)) for x in (content, style))
        ours, theirs = content.mean((2, 3)), style.mean((2, 3))
        assert float((own - ours).norm()) < 0.3 * float((theirs - ours).norm())
        assert float((other - theirs).norm()) < float((own - theirs).norm())


@pytest.mark.weights
def test_a_step_in_bfloat16_has_the_losses_of_one_in_float32(tmp_path: Path) -> None:
    told = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        training = run.SANet(context(tmp_path, "precise", precision=precision))
        content, style = torch.rand(2, 1, 3, 32, 32) * 2 - 1
        told[precision], bad = training.step(content, style, 0)
        assert not bad and {p.dtype for net in training.nets.values() for p in net.parameters()} == {torch.float32}
    assert told["bfloat16"] != told["float32"]
    assert told["bfloat16"] == pytest.approx(told["float32"], rel=0.03)
