"""Edits along semantic directions, and pictures of the generator's own size, on untrained networks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hypernst
from models.generators import mobilestylegan
from models.generators.haar import without_weave
from models.generators.interface import finished
from models.generators.region_weights import RegionWeights
from models.regions import UNKNOWN
from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.training import checkpoint
from stages.apply import large
from stages.apply import recipe as recipes
from stages.apply.studio import Studio
from stages.apply.stylist import Prepared
from stages.loaders import directions as loader
from stages.loaders import generator as generators
from tests.stages import fake_device
from tests.stages.apply.test_studio import load, ready, with_regions
from tests.stages.apply.test_stylize import call
from tests.stages.fake_device import fake_gpu

pytestmark = pytest.mark.weights


def with_directions(ctx: Context, place: Path, names: Sequence[str] = ("age", "smile")) -> Context:
    """The context with directions of its generator in a file."""
    told = {"mapping": loader.mapping_digest(generators.generator(ctx))}  # type: ignore[arg-type]
    checkpoint.save(place, dict(zip(names, torch.eye(512), strict=False)), told)
    editing = dataclasses.replace(ctx.profile.editing, directions=(weights.as_name(place),))
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, editing=editing))


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """The tiny profile with deltas by region and two directions of its generator."""
    torch.set_num_threads(1)
    tiny = profile.load("tiny")
    train = dataclasses.replace(tiny.train, refinement_iterations=1, region_deltas=True)
    made = ready(dataclasses.replace(tiny, train=train), tmp_path)
    found = load(made, tmp_path)
    found.ctx = with_directions(found.ctx, tmp_path / "own.safetensors")
    monkeypatch.chdir(tmp_path)
    return found


def test_a_turn_leaves_layers_finer_than_16_px_alone(studio: Studio, tmp_path: Path) -> None:
    ctx, net = with_directions(studio.ctx, tmp_path / "turn.safetensors", ("pose", "age")), studio.stylist().generator
    found = loader.directions(ctx, net)
    assert found["pose"].shape == (net.num_ws, 512) and found["age"].shape == (1, 512)
    assert found["pose"][:5].any(1).all() and not found["pose"][5:].any()


def test_the_latent_moves_and_the_deltas_stay(studio: Studio) -> None:
    me, style = with_regions(studio.read("me.png")), studio.read("a.png", style=True)
    net, look = studio.stylist().generator, studio.look(style)
    steps = loader.directions(studio.ctx, net)
    edited = studio.edit(me, {"smile": -0.5, "age": 2})
    moved = torch.from_numpy(edited.latent - me.latent)
    assert torch.allclose(moved, (2 * steps["age"] - 0.5 * steps["smile"]).expand_as(moved), atol=1e-5)
    assert edited.base is me and edited.edits == (("age", 2.0), ("smile", -0.5)) and edited.origin == me.origin
    with torch.no_grad():
        latent = torch.from_numpy(edited.latent)[None]
        assert np.array_equal(edited.image, images.to_arrays(net(latent))[0])
        stylist = studio.stylist()
        deltas = stylist.deltas(stylist.prepare(me), look.codes(me))
        where = stylist.hyper.region_weights(torch.from_numpy(edited.region)[None])
        prepared = stylist.prepare(edited)
        assert torch.equal(prepared.inversion, stylist.prepare(me).inversion) and prepared.details is not None
        expected = images.to_arrays(stylist.toned(prepared, net(latent, deltas, where), look.palette(me)))[0]
    assert np.array_equal(studio.render(edited, look), expected)
    assert not np.array_equal(edited.region, me.region) and not (edited.region == UNKNOWN).any()
    assert np.array_equal(studio.stylize(me, style, refine=0, edits={"age": 2, "smile": -0.5}), expected)
    assert studio.edit(me, {"age": 2, "smile": -0.5}) is edited and studio.edit(me, {"age": 0}) is me
    again = studio.edit(studio.edit(me, {"age": 1}), {"smile": -0.5, "age": 1})
    assert np.array_equal(again.latent, edited.latent) and again.edits == edited.edits
    assert studio.edit(edited, {"age": -2, "smile": 0.5}) is me


def test_a_gpu_reads_edits_and_paints_the_same_pictures(studio: Studio, tmp_path: Path) -> None:
    me, style = (studio.read(f"{name}.png", style=name == "a") for name in ("me", "a"))
    wanted = [studio.stylize(me, style, refine=0, edits=edits) for edits in ({}, {"age": 2})]
    with fake_gpu():
        moved = Studio(dataclasses.replace(studio.ctx, device=fake_device.NAME, cache=tmp_path / "other"))
        read = moved.read("me.png")
        assert np.array_equal(read.latent, me.latent) and np.array_equal(read.codes, me.codes)
        found = [moved.stylize(read, style, refine=0, edits=edits) for edits in ({}, {"age": 2})]
    for a, b in zip(found, wanted, strict=True):  # matrix products round by where numbers lie in memory
        away = np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16))
        assert away.max() <= 1 and away.mean() < 0.01


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"nose": 1}, "nose: profile tiny has no such direction; it has age, smile"),
        ({"age": 6}, "age is 6; expected steps from -5 to 5"),
        ({"age": float("nan")}, "age is nan; expected steps"),
        ({"age": True}, "age is True; expected steps"),
        ({"age": "old"}, "age is 'old'; expected steps"),
    ],
)
def test_wrong_edits_are_told_in_one_line(studio: Studio, edits: dict[str, float], told: str) -> None:
    with pytest.raises(hypernst.UserError) as caught:
        studio.stylize("nowhere.png", "a.png", edits=edits)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(hypernst.UserError, match=r"size is 1024; profile tiny gives 32 pixels"):
        studio.stylize("nowhere.png", "a.png", size=1024)


def test_published_directions_are_refused_by_other_generators(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"about": '{"kind": "boundary", "source_sha256": "' + weights.REGISTRY["direction-age"].sha256 + '"}'}
    checkpoint.write(tmp_path / "age.safetensors", {"direction": torch.eye(1, 512)}, about)
    editing = dataclasses.replace(studio.ctx.profile.editing, directions=(str(tmp_path / "age.safetensors"),))
    ctx = dataclasses.replace(studio.ctx, profile=dataclasses.replace(studio.ctx.profile, editing=editing))
    assert loader.names(ctx) == ["age"]
    net = generators.generator(ctx)
    with pytest.raises(
        hypernst.UserError, match=r"InterFaceGAN's direction of age .* another W \(8 layers\)"
    ) as caught:
        loader.directions(ctx, net)
    assert caught.value.status == 2
    monkeypatch.setattr(net, "num_ws", 18)
    assert loader.directions(ctx, net)["age"].shape == (1, 512)


def test_the_command_edits_and_its_recipe_repeats_it(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "load", lambda name: studio.ctx.profile)
    done = call("me.png", "--style=a.png", "--age=2", "--smile=-0.5", "--refine=0", "--size=32", "-o", "out.png")
    assert done.exit_code == 0, done.output
    expected = studio.stylize("me.png", "a.png", refine=0, edits={"age": 2, "smile": -0.5})
    assert np.array_equal(images.decode(Path("out.png").read_bytes()), expected)
    said = recipes.read(Path("out.png"))
    assert said.edits == {"age": 2, "smile": -0.5} and said.size is None
    assert said.weights["directions"] == weights.sha256(studio.ctx.profile.editing.directions[0])
    assert call("--recipe=out.png", "me.png", "-o", "again.png").exit_code == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    wrong = call("--recipe=out.png", "me.png", "--age=1", "-o", "x.png")
    assert (
        wrong.exit_code == 2 and "--recipe says strengths, mixes, regions, refinement, edits and size" in wrong.stderr
    )
    wrong = call("me.png", "--style=a.png", "--pose=1", "-o", "x.png")
    assert wrong.exit_code == 2 and "pose: profile tiny has no such direction; it has age, smile" in wrong.stderr


def test_a_large_picture_has_the_colours_of_the_small_one_and_detail_of_its_own(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mobilestylegan, "WIDTHS", (32, 32, 32, 32, 32, 32, 64))
    rng = torch.Generator().manual_seed(0)
    nets = {size: mobilestylegan.MobileStyleGAN(size) for size in (1024, 256)}
    shared = nets[1024].state_dict()
    for tensor in shared.values():
        tensor.copy_(torch.randn(tensor.shape, generator=rng) * (0.1 if tensor.ndim < 2 else tensor[0].numel() ** -0.5))
    for name, tensor in nets[256].state_dict().items():
        own = 0.1 * torch.randn(tensor.shape, generator=rng)
        tensor.copy_(own if name.startswith("head") else shared[name])
    monkeypatch.setattr(large.generators, "generator", lambda ctx, full: nets[1024])
    latent, none = torch.randn(1, 18, 512, generator=rng), torch.zeros(0)
    deltas = [0.3 * torch.randn(1, *row.shape[:2], generator=rng) for row in nets[256].layer_table()]
    with fake_gpu():
        gpu = fake_device.NAME
        render = large.LargeRenderer(studio.ctx, nets[256].to(gpu))
        assert (render.size, render.shared, render.same) == (1024, 128, False)
        nets[1024].to(gpu)
        regions = RegionWeights(torch.zeros(1, 256, 256, dtype=torch.uint8))
        prepared = Prepared(b"", none, latent.to(gpu), none, regions, False, none, none)
        y = render(prepared, [d.to(gpu) for d in deltas]).cpu()
        nets[256].cpu(), nets[1024].cpu()
    small = finished(nets[256], nets[256](latent, deltas)).clamp(-1, 1)
    plain = finished(nets[1024], nets[1024](latent, [*deltas[:11], *[None] * 5])).clamp(-1, 1)
    for _ in range(2):  # the small picture's weave is four times as wide here
        plain = without_weave(plain, 16, large.WEAVE)
    gap = lambda a: float((F.adaptive_avg_pool2d(a, 64) - F.adaptive_avg_pool2d(small, 64)).abs().mean())  # noqa: E731
    assert y.shape == (1, 3, 1024, 1024) and gap(y) < 0.2 * gap(plain)
    detail = lambda a: a - F.interpolate(F.adaptive_avg_pool2d(a, 128), (1024, 1024), mode="bicubic")  # noqa: E731
    inside = y.abs() < 1
    assert float((detail(y) - detail(plain))[inside].abs().mean()) < 0.3 * float(detail(plain)[inside].abs().mean())
