"""The cheap region style loss is the region style loss, value and gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.trunks import Trunk
from models.losses.narrow_region_style import NarrowRegionStyleLoss
from models.losses.region_style import RegionStyleLoss, groups_present


def trunk() -> Trunk:
    torch.manual_seed(0)
    net = Trunk("vgg16")
    for conv in net.convs:
        torch.nn.init.kaiming_normal_(conv.weight)
    return net


def test_it_is_the_style_term() -> None:
    small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x, style = F.interpolate(small, (256, 256), mode="bilinear").split(1)
    region = torch.full((1, 256, 256), 2, dtype=torch.uint8)
    region[:, :90], region[:, 90:200, 70:190] = 0, 1

    def seen(term: RegionStyleLoss) -> tuple[float, Tensor]:
        y = x.clone().requires_grad_()
        theirs = term.targets(style, region)
        found, shape = term.features(y)
        loss = term.style(term.statistics(found, region), theirs, groups_present(region, region))
        loss = loss + F.mse_loss(shape, term.content_features(style).float())
        loss.backward()
        assert y.grad is not None
        return float(loss.detach()), y.grad

    value, gradient = seen(RegionStyleLoss(trunk()))
    for dtype, near, cosine in ((torch.float32, 1e-4, 0.99999), (torch.bfloat16, 0.02, 0.97)):
        ours, slope = seen(NarrowRegionStyleLoss(trunk(), dtype))
        assert abs(ours / value - 1) < near
        assert float(torch.cosine_similarity(slope.flatten(), gradient.flatten(), 0)) > cosine


def test_grain_of_single_pixels_is_compared_in_its_neighbourhood() -> None:
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1
    flat, region = torch.zeros(1, 3, 256, 256), torch.full((1, 256, 256), 2, dtype=torch.uint8)
    term = RegionStyleLoss(trunk())
    plain, grain = (term.targets(x, region) for x in (flat, flat + 0.2 * board))
    moved = [float((a[1] - b[1]).abs().mean()) for a, b in zip(plain, grain, strict=True)]
    assert min(moved[:2]) > 1e-2 and max(moved[2:]) < 1e-5  # nothing of it is left at half the size
