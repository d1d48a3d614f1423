"""NNST: each part against the published code's numbers, and what optimising does to an image."""

import random

import numpy as np
import pytest
import torch

from models.backbones.trunks import Trunk
from models.baselines import nnst_colour as colour
from models.baselines import nnst_features as nf
from models.baselines.nnst import NNST
from tests.models.baselines.test_gatys import pair
from tests.support.goldens import Case


def opened(name: str, *inputs: str) -> tuple[Case, NNST, list[torch.Tensor]]:
    case = Case(name)
    return case, NNST.load(case.tensors()), [torch.from_numpy(case.input(i)) for i in inputs]


def test_features_and_hypercolumns() -> None:
    case, net, (image,) = opened("nnst_features", "image")
    maps = net.features(image)
    names = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3")
    for name, value in zip(names, maps, strict=True):
        case.check(f"relu{name}", value)
    hyper = nf.hypercolumns(maps, tuple(image.shape[2:]))
    case.check("hyper", hyper)
    case.check("hyper_rot", nf.turned_hypercolumns(net.features, image))
    lengths = hyper.square().sum(1, keepdim=True).sqrt()
    case.check("norms", lengths)
    back = nf.unit_columns(hyper[0].flatten(1)) * lengths.flatten()
    torch.testing.assert_close(back, hyper[0].flatten(1))


def test_matches_and_the_gradient_towards_them() -> None:
    case, net, (content, style, current) = opened("nnst_nearest", "content", "style", "current")
    pyramid = [level.requires_grad_() for level in nf.decompose(current, 3)]
    own = nf.decompose(content, 3)
    mix = 0.25 * nf.compose([own[0], *pyramid[1:]]) + 0.75 * content
    case.check("mix", mix)
    hyper = nf.hypercolumns(net.features(mix), (64, 64)).detach()
    theirs = nf.turned_hypercolumns(net.features, style)
    index, distance = nf.nearest(hyper[0].flatten(1), theirs[0].flatten(1))
    sure = case.npz["margin"] > 1e-5
    assert sure.mean() > 0.9 and np.array_equal(index.numpy()[sure], case.npz["nearest"][sure])
    case.check("distance", distance)
    target = nf.matched(hyper, theirs)
    case.check("target", target)
    loss = nf.cosine_loss(nf.hypercolumns(net.features(nf.compose(pyramid)), (64, 64)), target)
    case.check("loss", loss[None])
    loss.backward()
    for i, level in enumerate(pyramid):
        case.check(f"grad_{i}", level.grad)


@pytest.mark.parametrize(("name", "seed"), [("nnst_split", 0), ("nnst_split_small", 3)])
def test_the_last_pass_with_its_defect_repaired(name: str, seed: int) -> None:
    case, net, (current, style) = opened(name, "current", "style")
    pyramid = [level.requires_grad_() for level in nf.decompose(current, 3)]
    losses = net.sampled_losses(nf.compose(pyramid), net.features(style), random.Random(seed))
    case.check("layer_losses", losses)
    case.check("loss", losses.sum()[None])
    losses.sum().backward()
    for i, level in enumerate(pyramid):
        case.check(f"grad_{i}", level.grad)


def test_the_pyramid_of_odd_sizes() -> None:
    case = Case("nnst_pyramid")
    image = torch.from_numpy(case.input("image"))
    pyramid = nf.decompose(image, 4)
    for i, level in enumerate(pyramid):
        case.check(f"level_{i}", level)
    case.check("back", nf.compose(pyramid))
    case.check("init", nf.compose([torch.zeros_like(x) if i < 2 else x for i, x in enumerate(pyramid)]))
    case.check("from_2", nf.compose(pyramid[2:]))


def test_colours() -> None:
    case = Case("nnst_colour")
    content, style, output, grey = (
        torch.from_numpy(case.input(name)) for name in ("content", "style", "output", "grey_style")
    )
    lab = colour.to_oklab(content)
    case.check("oklab", lab)
    case.check("back", colour.from_oklab(lab))
    case.check("moments", colour.match_moments(colour.to_oklab(output), colour.to_oklab(style)))
    case.check("filtered", colour.smooth(lab))
    case.check("matched", colour.match_colour(content, style, output))
    case.check("matched_moment", colour.match_colour(content, style, output, moments_only=True))
    grey = (0.5 + 0.5 * (grey[:, :1] - 0.5)).expand(-1, 3, -1, -1)
    case.check("matched_grey", colour.match_colour(content, grey, output))


def turned(kind: str) -> dict[str, torch.Tensor]:
    """Random VGG16 tensors up to relu4_3, under torchvision's names or under this project's."""
    torch.manual_seed(0)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
    state = Trunk("vgg16", depth=10).state_dict()
    stems = {f"convs.{i}": f"features.{n}" if kind == "torchvision" else f"trunk.{i}" for i, n in enumerate(numbers)}
    return {stems[name.rpartition(".")[0]] + name[name.rindex(".") :]: t for name, t in state.items()}


def test_an_image_is_optimised_and_takes_the_styles_colours() -> None:
    net = NNST.load(turned("torchvision"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), NNST.load(turned("ours")).parameters(), strict=True))
    content, style = pair(64)
    style = style[..., :48]
    told: list[tuple[int, int]] = []
    out = net(content, style, steps=2, on_step=lambda *step: told.append(step))
    assert told == [(i, 6) for i in range(1, 7)]  # two scales, as the style has 24 and 48 px there, and the last pass
    assert out.shape == content.shape and float(out.abs().max()) <= 1
    assert torch.equal(out, net(content, style, steps=2))
    low, high = (f(colour.to_oklab((style + 1) / 2).flatten(2), 2) for f in (torch.amin, torch.amax))
    lab = colour.to_oklab((out + 1) / 2).flatten(2)
    assert bool((lab >= low[..., None] - 0.02).all()) and bool((lab <= high[..., None] + 0.02).all())
    with pytest.raises(ValueError, match="at least 16 px; got 12"):
        net(content[..., :12], style)


def test_wrong_files_are_told() -> None:
    with pytest.raises(ValueError, match=r"trunk.9.bias has to be \[512\], got nothing"):
        NNST.load({name: t for name, t in turned("torchvision").items() if name != "features.21.bias"})


def test_a_large_style_is_matched_in_pieces_about_their_own_means(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    content, style = torch.randn(4, 12), torch.randn(4, 16)
    monkeypatch.setattr(nf, "MATRIX", 8)
    index, distance = nf.nearest(content, style)
    monkeypatch.setattr(nf, "MATRIX", 16384)
    whole = [nf.nearest(part, style) for part in content.split(4, 1)]
    assert torch.equal(index, torch.cat([i for i, _ in whole])) and torch.equal(
        distance, torch.cat([d for _, d in whole])
    )
    assert not torch.equal(distance, nf.nearest(content, style)[1])
