"""The cheap style term is the style term, value and gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.narrow_style_term import NarrowStyleTerm
from models.style_term import StyleTerm, groups_present
from models.vgg import Trunk


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

    def seen(term: StyleTerm) -> tuple[float, Tensor]:
        y = x.clone().requires_grad_()
        theirs = term.targets(style, region)
        found, shape = term.features(y)
        loss = term.style(term.statistics(found, region), theirs, groups_present(region, region))
        loss = loss + F.mse_loss(shape, term.shape(style).float())
        loss.backward()
        assert y.grad is not None
        return float(loss.detach()), y.grad

    value, gradient = seen(StyleTerm(trunk()))
    for dtype, near, cosine in ((torch.float32, 1e-4, 0.99999), (torch.bfloat16, 0.02, 0.97)):
        ours, slope = seen(NarrowStyleTerm(trunk(), dtype))
        assert abs(ours / value - 1) < near
        assert float(torch.cosine_similarity(slope.flatten(), gradient.flatten(), 0)) > cosine
