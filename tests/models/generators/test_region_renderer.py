"""The renderer that refinement descends on gives the pictures and gradients of the generator with deltas by region."""

import pytest
import torch
from torch import Tensor

from models.generators.latent_renderer import LatentRenderer
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN
from models.generators.region_renderer import RegionRenderer
from models.generators.region_weights import RegionWeights
from tests.models.generators.test_latent_renderer import generator

__all__ = ["generator"]
START = 5


@pytest.fixture(scope="module")
def region_weights() -> RegionWeights:
    """Hair above a face beside a background, and a corner that is unknown."""
    region = torch.full((1, 256, 256), 2, dtype=torch.uint8)
    region[:, :90], region[:, 90:200, 70:190], region[:, 250:, 250:] = 0, 1, 255
    return RegionWeights(region)


def test_pictures_and_gradients_are_the_generators(generator: MobileStyleGAN, region_weights: RegionWeights) -> None:
    rng = torch.Generator().manual_seed(2)
    latent = torch.randn(1, NUM_WS, 512, generator=rng)
    deltas = [
        0.2 * torch.randn(1, region_weights.region_count, *entry.shape[:2], generator=rng)
        for entry in generator.layer_table()
    ]

    def seen(render: object) -> tuple[Tensor, list[Tensor]]:
        moving = [d.clone().requires_grad_() for d in deltas[START:]]
        picture = render([*deltas[:START], *moving])  # type: ignore[operator]
        ((picture - 0.3).square() * torch.linspace(0, 1, 256)).mean().backward()
        return picture.detach(), [d.grad for d in moving if d.grad is not None]

    picture, gradients = seen(lambda d: generator(latent, d, region_weights))
    ours, slopes = seen(RegionRenderer(LatentRenderer(generator), latent, region_weights, deltas, START))
    assert picture.std() > 0.1 and len(slopes) == len(gradients) == len(deltas) - START
    torch.testing.assert_close(ours, picture, atol=1e-4, rtol=1e-4)
    for slope, gradient in zip(slopes, gradients, strict=True):
        torch.testing.assert_close(slope, gradient, atol=1e-3 * float(gradient.abs().max()), rtol=1e-2)
    narrow, _ = seen(RegionRenderer(LatentRenderer(generator, torch.bfloat16), latent, region_weights, deltas, START))
    assert narrow.dtype is torch.float32 and float((narrow - picture).abs().mean()) < 0.03 * float(picture.std())


@pytest.mark.parametrize("start", [START, START + 1, -1])
def test_rows_before_the_start_stand_still(
    generator: MobileStyleGAN, region_weights: RegionWeights, start: int
) -> None:
    """The start may lie in a block, or in the head of the last three rows."""
    latent, table = torch.randn(1, NUM_WS, 512), generator.layer_table()
    deltas = [torch.zeros(1, region_weights.region_count, *entry.shape[:2]) for entry in table]
    start %= len(table)
    render = RegionRenderer(LatentRenderer(generator), latent, region_weights, deltas, start)
    torch.testing.assert_close(render(deltas), generator(latent, deltas, region_weights), atol=1e-4, rtol=1e-4)
    others = [d + 1 if i < start else d for i, d in enumerate(deltas)]
    assert torch.equal(render(others), render(deltas))
    others[start] = deltas[start] + 0.5
    assert not torch.equal(render(others), render(deltas))
