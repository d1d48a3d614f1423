"""How phases begin: rates, discriminators that learn alone, imported ones, and what the style can move by then."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.generators.interface import Generator
from models.hypernetworks import hyperstyle
from models.hypernetworks.hypernetwork import HyperNetwork
from models.hypernetworks.hyperstyle import HyperStyle
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from pipeline.errors import UserError
from pipeline.shards.indexed import Samples
from pipeline.training import checkpoint, loop
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.train import run as train
from stages.train.state import build, enter_phase, start_trunk
from tests.support import small_run

pytestmark = pytest.mark.weights  # LPIPS


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    with small_run.installed():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("phases")
    small_run.write_shards(small_run.context(base, ""))
    return base


def test_discriminators_learn_alone_when_stylisation_begins(base: Path) -> None:
    ctx = small_run.context(base, "alone", warm_up=2, discriminators_first=2, stylization_steps=4)
    train.run(ctx, shipped=False)
    rows = loop.rows(ctx.run)
    assert [{"adversarial", "l2"} & row.keys() for row in rows[2:4]] == [set(), set()]
    assert all("discriminator" in row for row in rows[2:]) and "adversarial" in rows[4]
    net = build(ctx, generators.generator(ctx))
    rates = []
    for net.step in range(6):
        enter_phase(net, ctx.profile.train)
        rates.append([optimiser.param_groups[0]["lr"] for optimiser in (net.optimiser, net.discriminator_optimiser)])
    shares = [[rate / full for rate, full in zip(row, rates[-1], strict=True)] for row in rates[2:]]
    assert shares == [[0.5, 0.5], [0.5, 1], [0.5, 1], [1, 1]]


def test_discriminators_may_be_imported(base: Path, tmp_path: Path) -> None:
    patch, image = PatchDiscriminator(width=0.05), ImageDiscriminator(256, base=512, top=16)
    for net, name in ((patch, "patch"), (image, "image")):
        checkpoint.save(tmp_path / f"{name}.safetensors", net.state_dict(), {})
    names = {f"{n}_discriminator": str(tmp_path / f"{n}.safetensors") for n in ("patch", "image")}
    ctx = small_run.context(base, "imported", **names)
    state = build(ctx, generators.generator(ctx))
    for net, started in ((patch, state.patch_discriminator), (image, state.image_discriminator)):
        assert all(torch.equal(t, started.state_dict()[n]) for n, t in net.state_dict().items())
        assert all(p.requires_grad for p in started.parameters())
    with pytest.raises(UserError, match=r"train\.patch_discriminator: .* judges images of 32 px; expected 64 px"):
        build(small_run.context(base, "imported", patch=64, **names), generators.generator(ctx))


def test_moments_of_what_stylisation_freezes_are_not_kept(base: Path) -> None:
    ctx = small_run.context(base, "moments")
    moments = []
    for steps in (2, 3):
        train.run(ctx, shipped=False, steps=steps)
        tensors = checkpoint.load(ctx.run / "checkpoint.safetensors")[0]
        moments.append({name for name in tensors if name.startswith("adam.")})
    net = build(ctx, generators.generator(ctx))
    net.phase, net.step = "stylize", 3
    enter_phase(net, ctx.profile.train)
    trained = sum(p.requires_grad for p in net.hyper.parameters())
    assert len(moments[1]) == 3 * trained < len(moments[0])  # step, and two moments


def test_a_fresh_run_measures_its_codes_and_its_average_keeps_up(base: Path) -> None:
    """With a share of 0.999 an average over two steps would still be its start; that of given weights moves so."""
    settings = {"ema": 0.999, "stylization_steps": 0}
    ctx = small_run.context(base, "fresh", **settings)
    out = ctx.run / "out.safetensors"
    train.run(ctx, shipped=False, export=out)
    found = checkpoint.load(ctx.run / "checkpoint.safetensors")[0]
    name = "heads.13.out.weight"  # starts at zero
    now, average = found[f"hyper.{name}"], found[f"ema.{name}"]
    assert float((average - now).norm()) < 0.3 * float(now.norm())
    codes = [Samples(ctx.shards, side, "train")[i]["codes"] for side in ("content", "style") for i in range(3)]
    torch.testing.assert_close(found["ema.space.mean"], torch.from_numpy(np.concatenate(codes)).mean(0))
    given = small_run.context(base, "given", weights=str(out), **settings)
    train.run(given, phase="reconstruct", steps=1)
    found = checkpoint.load(given.run / "checkpoint.safetensors")[0]
    start = checkpoint.load(out)[0][name].float()
    now, average = found[f"hyper.{name}"], found[f"ema.{name}"]
    torch.testing.assert_close(average - start, 0.001 * (now - start), rtol=0.1, atol=1e-8)


def moved_by_codes(
    hyper: HyperNetwork, net: Generator, base: Path, render: Callable[..., torch.Tensor]
) -> tuple[float, float]:
    """How far codes of another image move the rendering, and how far the deltas have moved it at all."""
    shards = small_run.context(base, "").shards
    content, style = (Samples(shards, name, "train")[0] for name in ("content", "style"))
    x, w, own, region, other = (
        torch.from_numpy(a)[None]
        for a in (content["image"], content["latent"], content["codes"], content["region"], style["codes"])
    )
    x, plain = x.permute(0, 3, 1, 2) / 127.5 - 1, net(w).clamp(-1, 1)
    where = hyper.region_weights(region)
    with torch.no_grad():
        one, two = (render(w, hyper(x, plain, codes, region), where) for codes in (own, other))
    return float((one - two).abs().mean()), float((one - plain).abs().mean())


@pytest.mark.parametrize("by_region", [True, False], ids=["portable", "paper"])
def test_swapped_codes_move_the_picture_before_stylisation(base: Path, by_region: bool) -> None:
    """After reconstruction alone the style has a way in, by region or arranged into one set of deltas."""
    settings = {"refinement_iterations": 1, "learning_rate": 1e-3, "ema": 0.0, "region_deltas": by_region}
    ctx = small_run.context(base, f"swapped-{by_region}", **settings)
    train.run(ctx, shipped=False, steps=2)
    net = generators.generator(ctx)
    hyper = hypernetworks.trained_hypernetwork(ctx, net.layer_table())
    moved, learnt = moved_by_codes(hyper, net, base, net)
    assert learnt > 1e-3 and moved > 0.01 * learnt, (moved, learnt)


def test_a_published_hyperstyle_lets_the_style_in_while_it_reconstructs(base: Path) -> None:
    """Its file knows no codes: the first steps move the picture, and then a swap of codes does."""
    net = small_run.stylegan2(small_run.context(base, ""))
    table, late = net.layer_table(), 3
    torch.manual_seed(0)
    hyper = RegionHyperStyle(table[-late:])
    hyper.initialise(HyperStyle(table[-late:], (0, 1)).state_dict())
    early: list[torch.Tensor] = [torch.zeros(1, *row.shape[:2], 1, 1) for row in table[:-late]]

    def render(latent: torch.Tensor, deltas: Sequence[torch.Tensor], where: object = None) -> torch.Tensor:
        return net(latent, [*early, *deltas])

    content = Samples(small_run.context(base, "").shards, "content", "train")[0]
    x, w, codes, region = (torch.from_numpy(content[n])[None] for n in ("image", "latent", "codes", "region"))
    x, plain = x.permute(0, 3, 1, 2) / 127.5 - 1, net(w).clamp(-1, 1)
    optimiser = torch.optim.Adam(hyper.train_only(None), 1e-4)
    assert moved_by_codes(hyper, net, base, render)[0] == 0
    for _ in range(2):
        optimiser.zero_grad()
        (render(w, hyper(x, plain, codes, region)) - x).square().mean().backward()
        optimiser.step()
    moved, learnt = moved_by_codes(hyper, net, base, render)
    assert learnt > 1e-3 and moved > 0.01 * learnt, (moved, learnt)


def test_a_new_trunk_in_hyperstyles_form_is_measured_on_the_contents(base: Path) -> None:
    ctx = small_run.context(base, "")
    net = small_run.stylegan2(ctx)
    hyper = RegionHyperStyle(net.layer_table()[-3:], project=True)
    start_trunk(ctx, net, hyper)
    norm = hyper.net.bn1
    assert float(norm.running_var.std()) > 0 and bool(norm.running_mean.any()) and not norm.training


def test_the_trunks_statistics_follow_in_reconstruction_alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the average go with them, and what stylisation freezes stays."""
    monkeypatch.setattr(hyperstyle, "BLOCKS", ((64, 1, 1), (128, 1, 2), (256, 1, 2), (512, 1, 2)))
    monkeypatch.setattr(generators, "generator", small_run.stylegan2)
    settings = {"heads": "hyperstyle", "region_deltas": False, "refinement_iterations": 1, "ema": 0.0}
    ctx = small_run.context(base, "trunk", **settings, batch=1, reconstruction_steps=2, stylization_steps=1)
    found = []
    for steps in (1, 2, 3):
        train.run(ctx, shipped=False, steps=steps)
        tensors = checkpoint.load(ctx.run / "checkpoint.safetensors")[0]
        found.append({n: t for n, t in tensors.items() if n.endswith(("running_mean", "running_var"))})
    one, two, three = found
    assert all(not torch.equal(one[n], two[n]) and torch.equal(two[n], three[n]) for n in one if n[:5] == "hyper")
    assert all(torch.equal(t, two[n.replace("ema.", "hyper.", 1)]) for n, t in two.items() if n[:3] == "ema")
