"""The palette of a picture: measured by region, brought to another, and what a look asks for."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.generators import palette
from models.generators import tone as tones
from models.generators.region_weights import RegionWeights
from models.regions import UNKNOWN
from stages.apply.look import Look, Part, whole
from stages.portraits.portrait import Portrait, in_region

MAP = torch.full((1, 256, 256), 2, dtype=torch.uint8)
MAP[:, :96], MAP[:, 96:192, 64:192] = 0, 1


def noise(seed: int) -> torch.Tensor:
    """Blotches of 4 px about a colour of their own in each region, [1, 3, 256, 256]."""
    rng = torch.Generator().manual_seed(seed)
    colours = torch.rand(3, 3, generator=rng) - 0.5
    blotches = F.interpolate(torch.randn(1, 3, 64, 64, generator=rng), scale_factor=4)
    return colours[MAP.long()].permute(0, 3, 1, 2) + 0.1 * blotches


def with_palette(image: torch.Tensor, where: RegionWeights, wanted: torch.Tensor) -> torch.Tensor:
    return tones.toned(image, where, tones.tone(image, where, wanted, None), None)


def shares(region: torch.Tensor) -> torch.Tensor:
    """One for the pixels that are 20 px or more away from any other region."""
    onehot = F.one_hot(region.long(), 3).permute(0, 3, 1, 2).float()
    return -F.max_pool2d(-onehot, 41, 1, 20)


def test_means_become_those_that_are_meant_and_contrast_half_of_the_way() -> None:
    image, other = noise(1), noise(2) * 1.3
    for region in (MAP, torch.where(MAP == 0, UNKNOWN, MAP.int()).to(torch.uint8)):
        where, inside = RegionWeights(region), shares(MAP)
        wanted = palette.measure(other, inside)
        if where.region_count == 4:  # the row of pixels of no known region is the last
            wanted = torch.cat([wanted, wanted[:, :1]], 1)
        found = palette.measure(with_palette(image, where, wanted), inside)
        assert torch.allclose(found[..., :3], wanted[:, :3, :3], atol=0.04)  # edges fade
        own = palette.measure(image, inside)[..., 3]
        assert torch.allclose(found[..., 3], (own * wanted[:, :3, 3]).sqrt(), atol=0.03)
    far = torch.tensor([0.0, 0.0, 0.0, 9.0]).expand(1, 4, 4)
    everywhere = RegionWeights(torch.zeros_like(MAP))
    flat = with_palette(image, everywhere, far)
    assert palette.measure(flat, torch.ones(1, 1, 256, 256))[0, 0, 3] == pytest.approx(
        1.25 * float(palette.measure(image, torch.ones(1, 1, 256, 256))[0, 0, 3]), rel=1e-3
    )


def test_a_picture_with_its_own_palette_stays_as_it_is_and_a_gradient_flows() -> None:
    image, where = noise(3).requires_grad_(), RegionWeights(MAP)
    own = palette.measure(image, where.weights(256)).detach()
    same = with_palette(image, where, own)
    assert torch.allclose(same, image, atol=1e-4)
    same.square().mean().backward()
    assert image.grad is not None and bool(image.grad.isfinite().all())


def portrait(seed: int, valid: tuple[bool, bool, bool] = (True, True, True)) -> Portrait:
    image = (noise(seed)[0].permute(1, 2, 0).clamp(-1, 1) * 127.5 + 127.5).round().byte().numpy()
    codes = np.random.default_rng(seed).standard_normal((4, 256)).astype(np.float32)
    return Portrait(str(seed), image, MAP[0].numpy(), np.zeros((18, 512), np.float32), codes, np.array(valid))


def test_a_palette_is_mixed_as_codes_are() -> None:
    me, a, b = portrait(1), portrait(2), portrait(3, (False, True, True))
    pixels = images(b)
    assert np.allclose(b.palette[0], b.palette[3]) and np.allclose(b.palette[3, :3], pixels.mean((0, 1)), atol=1e-5)
    assert np.allclose(a.palette[1, :3], images(a)[MAP[0] == 1].mean(0), atol=1e-5)
    look = Look((Part(((b, 1.0),), 0.5), Part(((a, 0.25), (b, 0.75)), 1.0), Part()))
    found = look.palette(me)
    assert np.allclose(found[0], (me.palette[0] + b.palette[3]) / 2, atol=1e-6)
    assert np.allclose(found[1], 0.25 * a.palette[1] + 0.75 * b.palette[1], atol=1e-6)
    assert np.array_equal(found[2:], me.palette[2:])
    edited = dataclasses.replace(me, image=a.image, base=me)
    assert np.array_equal(whole(a, 0.0).palette(edited), me.palette)  # an edited portrait keeps its colours
    mixed = in_region(a, 0, me)
    assert np.array_equal(mixed.target.palette[0], me.palette[0]) and np.array_equal(mixed.palette[1:], a.palette[1:])
    unseen = dataclasses.replace(a, image=np.zeros((0, 0), np.uint8), region=np.zeros((0, 0), np.uint8))
    assert unseen.palette is None and whole(unseen).palette(me) is None
    known = dataclasses.replace(unseen, colours=a.palette)
    assert np.array_equal(whole(known).palette(me), a.palette)


def images(portrait: Portrait) -> np.ndarray:
    return portrait.image.astype(np.float32) / 127.5 - 1
