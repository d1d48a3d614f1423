"""Refinement lowers what it optimises, from the prediction on; it is repeatable and keeps the best it saw."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from models.backbones.trunks import Trunk
from models.generators.interface import finished
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN
from models.generators.region_renderer import renderer
from models.hypernetworks.hypernetwork import HyperNetwork
from models.losses.region_style import RegionStyleLoss, groups_present
from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply import refine
from stages.apply.look import Look, Part, whole
from stages.apply.stylist import Prepared, Stylist
from stages.portraits.portrait import Portrait
from tests.models.generators.test_latent_renderer import generator
from tests.stages import fake_device
from tests.stages.fake_device import fake_gpu

__all__ = ["generator"]


def portrait(seed: int) -> Portrait:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(80, 176, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
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
    ctx = Context(profile.load("portable"))
    return refine.Refinement(ctx, Stylist(ctx, generator, hyper))


def loss(term: RegionStyleLoss, y: torch.Tensor, content: Portrait, style: Portrait) -> float:
    """What refinement promises to lower, written out."""
    regions = [torch.from_numpy(p.region)[None] for p in (content, style)]
    theirs = term.targets(images.to_tensor(style.image), regions[1])
    ours, shape = term.features(y)
    away = term.style(term.statistics(ours, regions[0]), theirs, groups_present(*regions))
    own = images.to_tensor(content.image)
    kept = (shape - term.content_features(own)).square().mean()
    face = (eyes_to_lips(term, y) - eyes_to_lips(term, own)).square().mean()
    return float(refine.STYLE_WEIGHT * away + kept + face)


def eyes_to_lips(term: RegionStyleLoss, x: torch.Tensor) -> torch.Tensor:
    """Four convolutions of VGG16 on the middle of an aligned face, each channel normalised."""
    *_, second = zip(range(4), term.trunk.layers(x[..., 96:212, 68:188]), strict=False)
    return torch.nn.functional.instance_norm(second[1][..., 3:-3, 3:-3])


def test_steps_lower_the_loss_and_none_is_the_prediction(refinement: refine.Refinement) -> None:
    content, style = portrait(1), portrait(2)
    plain, few, more = (refinement(content, whole(style), steps).image for steps in (0, 2, 5))
    s, p = refinement.stylist, refinement.stylist.prepare(content)
    latent = torch.from_numpy(content.latent)[None]
    with torch.no_grad():
        forward = finished(s.generator, s.generator(latent, None))  # a new hypernetwork predicts no deltas
        forward = s.toned(p, forward, style.palette).clamp(-1, 1)
        assert torch.allclose(plain, forward, atol=1e-4)
        as_drawn = dataclasses.replace(profile.load("portable"), render=profile.Render(palette=False, details=0.0))
        plainly = Stylist(Context(as_drawn), s.generator, s.hyper)
        assert plainly.toned(plainly.prepare(content), forward, style.palette) is forward
        found = [loss(refinement.term, y, content, style) for y in (plain, few, more)]
    assert found[2] < found[1] < found[0]
    assert torch.equal(few, refinement(content, whole(style), 2).image) and not few.requires_grad
    other = refinement(content, whole(portrait(3)), 2)
    assert not torch.equal(other.image, few)  # statistics are kept for each picture, not for the last
    again = renderer(s.generator, refinement.rows, p.latent, p.where, other.deltas, refinement.start)
    seen = s.toned(p, finished(s.generator, again(other.deltas)), other.tone).clamp(-1, 1)
    assert torch.allclose(seen, other.image, atol=1e-5)  # the deltas are the image's


def test_nothing_is_computed_twice_for_a_pair(refinement: refine.Refinement, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    computed, prepared, stylist = refinement._computed, Stylist._prepare, refinement.stylist
    shaped = refinement.term.content_features

    def count(portrait: Portrait) -> refine.Statistics:
        seen.append(portrait.key)
        return computed(portrait)

    def shape(x: torch.Tensor) -> torch.Tensor:
        seen.append("shape")
        return shaped(x)

    def prepare(self: Stylist, content: Portrait, key: bytes) -> Prepared:
        seen.append("prepared")
        return prepared(self, content, key)

    monkeypatch.setattr(refinement, "_computed", count)
    monkeypatch.setattr(refinement.term, "content_features", shape)
    monkeypatch.setattr(Stylist, "_prepare", prepare)
    assert stylist.memory.limit == 0  # as in the evaluation
    refinement(portrait(1), whole(portrait(2)), 1)
    assert sorted(seen) == ["p2", "prepared", "shape"]  # at full strength the portrait's own style counts nowhere
    seen.clear()
    refinement(portrait(1), whole(portrait(2), 0.5), 0)
    assert sorted(seen) == ["p1", "prepared"]
    seen.clear()
    stylist.stylize(portrait(1), portrait(2))
    assert seen == ["prepared"]


def test_targets_are_mixed_as_codes_are(refinement: refine.Refinement) -> None:
    content, a, b = portrait(1), portrait(2), portrait(3)
    bald = dataclasses.replace(a, region=np.where(a.region == 0, 2, a.region).astype(np.uint8))
    own, of_a, of_b, of_bald = (refinement._statistics(p) for p in (content, a, b, bald))
    half, counts = refinement._targets(content, whole(a, 0.5))
    assert counts.tolist() == [[True] * 4]
    for layer in range(len(own)):
        for i in (0, 1):
            assert torch.allclose(half[layer][i], (own[layer][i] + of_a[layer][i]) / 2, atol=1e-4)
    exact = refinement._targets(content, whole(a))[0]
    assert all(
        torch.equal(x, y) for ours, theirs in zip(exact, of_a, strict=True) for x, y in zip(ours, theirs, strict=True)
    )
    assert refinement._targets(content, whole(bald))[1].tolist() == [[False, True, True, True]]
    look = Look((Part(((bald, 1.0),), 1.0), Part(((a, 0.25), (b, 0.75)), 1.0), Part()))
    mixed, counts = refinement._targets(content, look)
    assert counts.tolist() == [[True, True, True, False]]  # no image has all of this, so the whole does not count
    for layer in range(len(own)):
        assert torch.allclose(mixed[layer][0][:, 0], of_bald[layer][0][:, 3])  # it has no hair: its whole image
        expected = 0.25 * of_a[layer][0][:, 1] + 0.75 * of_b[layer][0][:, 1]
        assert torch.allclose(mixed[layer][0][:, 1], expected, atol=1e-4)
        assert torch.allclose(mixed[layer][0][:, 2], own[layer][0][:, 2])


def test_a_gpu_takes_the_same_steps_and_is_waited_for_once_in_each(refinement: refine.Refinement) -> None:
    content, style, waits = portrait(1), whole(portrait(2)), []
    wanted = refinement(content, style, 2).image
    own = refinement.stylist
    with fake_gpu() as gpu:
        ctx = dataclasses.replace(Context(profile.load("portable")), device=fake_device.NAME)
        nets = (copy.deepcopy(net).to(fake_device.NAME) for net in (own.generator, own.hyper))  # type: ignore[arg-type]
        moved = refine.Refinement(ctx, Stylist(ctx, *nets))
        for steps in (1, 2):
            gpu.syncs.clear()
            found = moved(content, style, steps).image
            waits.append(sum(gpu.syncs.values()))
        assert torch.equal(found.cpu(), wanted) and waits[1] == waits[0] + 1


def test_its_adam_is_adam() -> None:
    rng = torch.Generator().manual_seed(3)
    ours = [torch.randn(1, 3, 8, n, generator=rng).requires_grad_() for n in (4, 5)]
    theirs = [d.detach().clone().requires_grad_() for d in ours]
    adam, reference = refine.Adam(ours), torch.optim.Adam(theirs, fused=True)
    for rate, momentum in ((0.013, 0.5), (0.02, 0.6), (0.01, 0.7)):
        for d in theirs:
            d.grad = torch.randn(d.shape, generator=rng)
        adam.step([d.grad for d in theirs if d.grad is not None], rate, momentum)
        reference.param_groups[0] |= {"lr": rate, "betas": (momentum, refine.STEADY)}
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_it_is_for_one_forward_pass(refinement: refine.Refinement) -> None:
    refinement.stylist.refinement_iterations = 3
    with pytest.raises(UserError, match="one forward pass, profile portable makes 3"):
        refine.Refinement(Context(profile.load("portable")), refinement.stylist)
