"""What renderings are judged by: statistics a region, and the losses of both passes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.trunks import Trunk
from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.losses import adversarial, region_patches
from models.losses.narrow_region_style import NarrowRegionStyleLoss
from models.losses.objectives import Batch, LossWeights, Reconstruction, Stylization
from models.losses.region_style import RegionStyleLoss, groups_present
from models.metrics.lpips import LPIPS

SIDE = 64


def batch(seed: int, n: int = 1, regions: tuple[int, ...] = (0, 1, 2)) -> Batch:
    """Pictures in bands of the given regions."""
    rng = torch.Generator().manual_seed(seed)
    bands = torch.tensor(regions, dtype=torch.uint8).repeat_interleave(-(-SIDE // len(regions)))[:SIDE]
    region = bands[None, :, None].expand(n, SIDE, SIDE).contiguous()
    return Batch(torch.rand(n, 3, SIDE, SIDE, generator=rng) * 2 - 1, torch.zeros(n, 18, 512), region,
                 torch.zeros(n, 4, 256))  # fmt: skip


@pytest.fixture(scope="module")
def term() -> RegionStyleLoss:
    torch.manual_seed(0)
    return RegionStyleLoss(Trunk("vgg16"))


@given(st.integers(0, 999), st.sampled_from([4, 8, 16]), st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_statistics_are_weighted_moments_of_each_region(term: RegionStyleLoss, seed: int, side: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    feature = rng.standard_normal((n, 5, side, side)).astype(np.float32)
    region = rng.choice(np.array([0, 1, 2, 255], np.uint8), (n, 16, 16), p=[0.4, 0.3, 0.2, 0.1])
    [(mean, std)] = term.statistics([torch.from_numpy(feature)], torch.from_numpy(region))
    block = 16 // side
    for i in range(n):
        for label in range(4):
            inside = np.ones((16, 16)) if label == 3 else region[i] == label
            share = inside.reshape(side, block, side, block).mean((1, 3))
            weight = share / max(share.sum(), 1e-3)
            expected = (feature[i] * weight).sum((1, 2))
            variance = (np.square(feature[i].astype(float)) * weight).sum((1, 2)) - np.square(expected)
            assert np.allclose(mean[i, label], expected, atol=1e-4)
            assert np.allclose(std[i, label], np.sqrt(variance.clip(1e-6)), atol=2e-3)


@pytest.mark.parametrize("kind", [RegionStyleLoss, NarrowRegionStyleLoss])
def test_a_small_std_beside_a_large_mean_survives(kind: type[RegionStyleLoss]) -> None:
    """A mean square minus a squared mean would lose 1 % here in float32, and all in TF32."""
    rng = torch.Generator().manual_seed(0)
    feature = 30 + 0.03 * torch.randn(1, 5, 16, 16, generator=rng)
    region = torch.randint(0, 3, (1, 16, 16), generator=rng).byte()
    [(_, std)] = kind(Trunk("vgg16")).statistics([feature], region)
    for label in range(4):
        inside = feature[0].double()[:, region[0] == label] if label < 3 else feature[0].double().flatten(1)
        assert torch.allclose(std[0, label].double(), inside.std(1, correction=0), rtol=1e-3)


def test_the_style_distance_is_zero_to_itself_and_sees_its_own_region_only(term: RegionStyleLoss) -> None:
    own = batch(0)
    features, shape = term.features(own.image)
    assert shape.shape[1] == 256 and len(features) == 5
    mine = term.statistics(features, own.region)
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    assert float(term.style(mine, mine, everywhere)) == 0
    edited = [f.clone() for f in features]
    for f in edited:
        f[:, :, -f.shape[-1] // 4 :] *= 0.2  # the background is the last third
    theirs = term.statistics(edited, own.region)
    hair = torch.tensor([[True, False, False, False]])
    background = torch.tensor([[False, False, True, False]])
    assert float(term.style(mine, theirs, hair)) < 1e-6 < 1e-3 < float(term.style(mine, theirs, background))
    assert float(term.style(mine, theirs, torch.zeros_like(hair))) == 0


def test_only_regions_on_both_sides_are_compared() -> None:
    whole, bald, unknown = batch(0).region, batch(0, regions=(1, 2)).region, batch(0, regions=(255,)).region
    assert groups_present(whole, whole).tolist() == [[True, True, True, True]]
    assert groups_present(whole, bald).tolist() == [[False, True, True, True]]
    assert groups_present(whole, unknown).tolist() == [[False, False, False, True]]
    speck = bald.clone()
    speck[:, 0, :20] = 0  # half a percent
    assert groups_present(whole, speck).tolist() == [[False, True, True, True]]


def test_reconstruction_is_least_for_the_picture_itself() -> None:
    torch.manual_seed(0)
    judge = Reconstruction(LPIPS("alex"), LossWeights(2.0, 0, 0.8, 0, 0, 0))
    own = batch(1)
    loss, terms = judge(own.image, own)
    assert float(loss) == 0 and set(terms) == {"l2", "lpips"}
    y = (own.image * 0.5).requires_grad_()
    loss, terms = judge(y, own)
    assert torch.allclose(loss, 2 * (terms["l2"] + 0.8 * terms["lpips"]))
    assert torch.allclose(terms["l2"], F.mse_loss(y, own.image))
    loss.backward()
    assert y.grad is not None and y.grad.abs().sum() > 0


def stylization(weights: LossWeights, term: RegionStyleLoss | None) -> Stylization:
    torch.manual_seed(0)
    return Stylization(ImageDiscriminator(SIDE, base=256, top=8), PatchDiscriminator(width=0.03), term, weights, 2, 32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_each_term_is_weighted_and_reaches_the_rendering(term: RegionStyleLoss) -> None:
    content, style = batch(2, 2, (1, 2)), batch(3, 2, (1, 2))
    judge = stylization(LossWeights(0, 0.5, 0, 0, 3.0, 0.25), term)
    y = content.image.clone().requires_grad_()
    loss, terms = judge(y, content, style, judge.sample_patch_groups(content, style, rng()))
    assert set(terms) == {"adversarial", "patch", "style", "content"}
    expected = 0.5 * (terms["adversarial"] + terms["patch"]) + 3 * terms["style"] + 0.25 * terms["content"]
    assert torch.allclose(loss, expected) and terms["content"].item() == 0
    loss.backward()
    assert y.grad is not None and all(bool(g.any()) for g in y.grad)
    assert all(p.grad is None for p in term.parameters())
    same, _ = judge(y, content, style, judge.sample_patch_groups(content, style, rng()))
    assert torch.equal(same, loss)


@pytest.mark.parametrize("regions", [(0,), (255,)])
def test_without_a_common_region_no_patch_is_compared(term: RegionStyleLoss, regions: tuple[int, ...]) -> None:
    content, style = batch(2, regions=regions), batch(3, regions=(1, 2))
    judge = stylization(LossWeights(0, 1.0, 0, 0, 1.0, 0), term)
    loss, terms = judge(content.image, content, style, judge.sample_patch_groups(content, style, rng()))
    assert set(terms) == {"adversarial", "style", "content"} and bool(loss.isfinite())
    groups = judge.sample_patch_groups(content, style, rng())
    loss, found = judge.discriminator(content.image, style, groups)
    assert set(found) == {"discriminator"} and bool(loss.isfinite())
    assert [set(terms) for _, terms in judge.penalties(style, groups, 16)] == [{"r1"}]


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_patches_lie_in_their_region_whatever_the_images_size(scale: float) -> None:
    """The map has another resolution than the image where the generator does not give 256 px."""
    data, side = batch(0), int(SIDE * scale)
    shown = data.region[:, None].float().repeat(1, 3, 1, 1)
    image = F.interpolate(shown, (side, side), mode="nearest")
    scaled = Batch(image, data.latent, data.region, data.codes)
    objective = stylization(LossWeights(0, 1.0, 0, 0, 0, 0), None)
    objective.patch = 8
    groups = objective.sample_patch_groups(scaled, scaled, np.random.default_rng(0))
    cut = region_patches.crops(image, groups.sample, groups.fake)
    assert cut.shape[-1] == 8 and len(groups) == 3
    for region, patches in zip(groups.region, cut, strict=True):
        assert float((patches == float(region)).float().mean()) > 0.6


def test_auxiliary_terms_alone_need_no_discriminators(term: RegionStyleLoss) -> None:
    judge = stylization(LossWeights(0, 0, 0, 0, 1.0, 1.0), term)
    content, style = batch(2), batch(3)
    _, terms = judge(content.image, content, style, judge.sample_patch_groups(content, style, rng()))
    assert set(terms) == {"style", "content"}


def test_discriminators_learn_from_detached_renderings() -> None:
    judge = stylization(LossWeights(0, 1.0, 0, 0, 0, 0), None)
    content, style = batch(2, 2, (1, 2)), batch(3, 2, (1, 2))
    y = content.image.clone().requires_grad_()
    loss, terms = judge.discriminator(y, style, judge.sample_patch_groups(content, style, rng()))
    assert set(terms) == {"discriminator", "patch_discriminator"} and torch.allclose(
        loss, terms["discriminator"] + terms["patch_discriminator"]
    )
    loss.backward()
    discriminators: list[Tensor] = [*judge.image_discriminator.parameters(), *judge.patch_discriminator.parameters()]
    assert y.grad is None and style.image.grad is None and all(p.grad is not None for p in discriminators)


def test_penalties_taken_one_by_one_are_those_of_the_batch() -> None:
    judge = stylization(LossWeights(0, 1.0, 0, 0, 0, 0), None)
    content, style = batch(2, 3, (1, 2)), batch(3, 3, (1, 2))
    groups = judge.sample_patch_groups(content, style, rng())
    losses = [loss for loss, _ in judge.penalties(style, groups, 16)]
    assert len(losses) == 3 + len(groups) == 3 + 6
    image = style.image.clone().requires_grad_()
    patches = [
        region_patches.crops(style.image, groups.sample, boxes).requires_grad_()
        for boxes in (groups.reference, groups.real)
    ]
    whole = adversarial.r1(judge.image_discriminator(image), [image], 10.0, every=16)
    whole = whole + adversarial.r1(judge.patch_discriminator(*patches), patches, 0.5, every=16)
    assert torch.allclose(torch.stack(losses).sum(), whole, rtol=1e-5)
