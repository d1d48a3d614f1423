"""Refinement lowers what it optimises, from the prediction on; it is repeatable and keeps the best it saw."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.backbones.trunks import Trunk
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN
from models.hypernetworks.hypernetwork import HyperNetwork
from models.losses.region_style import RegionStyleLoss, groups_present
from pipeline import images, profile, weights
from pipeline.context import Context
from stages.apply import refine
from stages.apply.portrait import Portrait
from tests.models.generators.test_latent_renderer import generator

__all__ = ["generator"]


def portrait(seed: int) -> Portrait:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    region = np.full((256, 256), 2, np.uint8)
    region[:90], region[90:200, 70:190] = 0, 1
    codes = rng.standard_normal((4, 256)).astype(np.float32) / 16
    return Portrait(
        f"p{seed}", image, region, rng.standard_normal((NUM_WS, 512)).astype(np.float32), codes, np.ones(3, bool)
    )


@pytest.fixture
def refinement(generator: MobileStyleGAN, monkeypatch: pytest.MonkeyPatch) -> refine.Refinement:
    torch.manual_seed(1)
    hyper = HyperNetwork(generator.layer_table(), width=8, rank=1, region_deltas=True).requires_grad_(False).eval()
    trunk = Trunk("vgg16")
    for conv in trunk.convs:
        torch.nn.init.kaiming_normal_(conv.weight)
    monkeypatch.setattr(weights, "tensors", lambda name: name)
    monkeypatch.setattr(refine, "Trunk", lambda net, tensors: trunk)
    monkeypatch.setattr(refine, "narrow_type", lambda device: torch.float32)
    stylist = SimpleNamespace(
        generator=generator,
        hyper=hyper,
        device="cpu",
        refinement_iterations=1,
        codes=lambda content, style, strength: style.codes,
    )
    return refine.Refinement(Context(profile.load("portable")), stylist)  # type: ignore[arg-type]


def loss(term: RegionStyleLoss, y: torch.Tensor, content: Portrait, style: Portrait) -> float:
    """What refinement promises to lower, written out."""
    regions = [torch.from_numpy(p.region)[None] for p in (content, style)]
    theirs = term.targets(images.to_tensor(style.image), regions[1])
    ours, shape = term.features(y)
    away = term.style(term.statistics(ours, regions[0]), theirs, groups_present(*regions))
    return float(6 * away + (shape - term.content_features(images.to_tensor(content.image))).square().mean())


def test_steps_lower_the_loss_and_none_is_the_prediction(refinement: refine.Refinement) -> None:
    content, style = portrait(1), portrait(2)
    plain, few, more = (refinement(content, style, steps) for steps in (0, 2, 5))
    s = refinement.stylist
    latent = torch.from_numpy(content.latent)[None]
    with torch.no_grad():
        forward = s.generator(latent, None).clamp(-1, 1)  # a new hypernetwork predicts no deltas
        assert torch.allclose(plain, forward, atol=1e-4)
        found = [loss(refinement.term, y, content, style) for y in (plain, few, more)]
    assert found[2] < found[1] < found[0]
    assert torch.equal(few, refinement(content, style, 2)) and not few.requires_grad
    other = refinement(content, portrait(3), 2)
    assert not torch.equal(other, few)  # statistics are kept for each picture, not for the last


def test_it_is_for_one_forward_pass(refinement: refine.Refinement) -> None:
    refinement.stylist.refinement_iterations = 3
    with pytest.raises(ValueError, match="one forward pass, this network makes 3"):
        refine.Refinement(Context(profile.load("portable")), refinement.stylist)
