"""The cheap region style loss is the region style loss, value and gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.trunks import Trunk
from models.losses.narrow_region_style import PHASES, NarrowRegionStyleLoss
from models.losses.region_style import RegionStyleLoss, groups_present, taps


def trunk() -> Trunk:
    torch.manual_seed(0)
    net = Trunk("vgg16")
    for conv in net.convs:
        torch.nn.init.kaiming_normal_(conv.weight)
    return net


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """An image, a style and where hair, face and background lie."""
    small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x, style = F.interpolate(small, (256, 256), mode="bilinear").split(1)
    region = torch.full((1, 256, 256), 2, dtype=torch.uint8)
    region[:, :90], region[:, 90:200, 70:190] = 0, 1
    return x, style, region


def test_it_is_the_style_term() -> None:
    x, style, region = scene()

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


def test_the_quarters_of_the_finest_activations_make_up_the_whole() -> None:
    x, style, region = scene()
    x = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))  # grain: the quarters differ
    x.requires_grad_()
    term = NarrowRegionStyleLoss(trunk())
    (first, whole, *others), shape = term.features(x)
    with torch.no_grad():
        expected = term.statistics([first, whole, *others], region)
    judged: list[Tensor] = []
    slope, weighed, count = torch.zeros_like(x), torch.zeros(2, 4, 64), torch.zeros(4, 1)
    for down, right in PHASES:
        (same, quarter, *rest), kept = term.features(x, (down, right))
        assert all(torch.equal(a, b) for a, b in zip([same, *rest, kept], [first, *others, shape], strict=True))
        torch.testing.assert_close(quarter, whole[..., down::2, right::2], atol=1e-5, rtol=1e-4)  # edges too
        slope += torch.autograd.grad(quarter.square().sum(), x)[0]
        with torch.no_grad():
            found = term.statistics([same, quarter, *rest], region, (down, right))
            theirs, present = term.targets(style, region), groups_present(region, region)
        parts = term.parted(found, theirs, present)
        torch.testing.assert_close(parts[0] + parts[1], term.style(found, theirs, present))
        judged.append(parts[0])
        mean, deviation = (value[0] for value in found.pop(1))
        for pair, other in zip(found, [expected[0], *expected[2:]], strict=True):
            assert torch.equal(torch.stack(pair), torch.stack(other))
        places = [(region[0, down::2, right::2] == r).sum() for r in range(3)]
        share = torch.tensor([*places, 128 * 128])[:, None]
        weighed += share * torch.stack([mean, deviation.square() + mean.square()])
        count += share
    assert len({float(value) for value in judged}) == 1  # which of two steps is better does not depend on the quarter
    mean, deviation = (value[0] for value in expected[1])
    torch.testing.assert_close(weighed / count, torch.stack([mean, deviation.square() + mean.square()]))
    together = torch.autograd.grad(whole.square().sum(), x)[0]
    torch.testing.assert_close(slope, together, atol=1e-4 * float(together.abs().max()), rtol=1e-3)


def test_grain_of_single_pixels_is_compared_in_its_neighbourhood() -> None:
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1
    flat, region = torch.zeros(1, 3, 256, 256), torch.full((1, 256, 256), 2, dtype=torch.uint8)
    term = RegionStyleLoss(trunk())
    plain, grain = (term.targets(x, region) for x in (flat, flat + 0.2 * board))
    moved = [float((a[1] - b[1]).abs().mean()) for a, b in zip(plain, grain, strict=True)]
    assert min(moved[:2]) > 1e-2 and max(moved[2:]) < 1e-5  # nothing of it is left at half the size


def test_the_face_has_finer_content_features_that_see_nothing_but_the_image() -> None:
    x, _, _ = scene()
    term, y = NarrowRegionStyleLoss(trunk()), x.clone()
    seen = term.face_features(x)
    assert seen.shape == (1, 128, 52, 54) and term.content_features(x).shape == (1, 256, 32, 32)
    inside = taps(term.trunk, x, (3,))[3][..., 51:103, 37:91]  # of the whole image: no padding near, and so no edge
    torch.testing.assert_close(seen, F.instance_norm(inside), atol=1e-4, rtol=1e-4)
    y[..., 118:126, 90:110] = y[..., 118:126, 90:110].flip(3)  # an eye that looks the other way
    away = (seen - term.face_features(y)).abs().mean((0, 1))
    assert away[8:12, 8:18].mean() > 10 * away[20:].mean()
    dim, other = (F.mse_loss(term.face_features(image), seen) for image in (0.5 * x, x.flip(3)))
    assert 4 * dim < other  # contrast counts little, place much
    assert term.face_features(F.avg_pool2d(x, 8)).shape == (1, 128, 7, 7)
