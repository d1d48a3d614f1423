"""The inverse Haar transform, by which MobileStyleGAN doubles its sides, and the weave that it leaves in images."""

import torch
import torch.nn.functional as F
from torch import Tensor

PERIOD = 4  # pixels after which the weave repeats: it comes from the last two transforms that have deltas


def inverse_haar(x: Tensor) -> Tensor:
    """Invert one Haar level: [N, 4C, H, W] (C low-pass, then C x 3 details) -> [N, C, 2H, 2W]."""
    n, channels, h, w = x.shape
    c = channels // 4
    low, detail = x[:, :c], x[:, c:].reshape(n, c, 3, h, w)
    rows, columns, both = detail.unbind(2)
    a, b, p, q = low + rows, low - rows, columns + both, columns - both
    quads = torch.stack([a + p, a - p, b + q, b - q], dim=2).mul(0.5)
    return F.pixel_shuffle(quads.reshape(n, 4 * c, h, w), 2)


def without_weave(image: Tensor, period: int = PERIOD, limit: float | None = None) -> Tensor:
    """An image [N, C, H, W] without what it repeats every `period` pixels; sides are multiples of 4 periods.

    The details of a wavelet image have means near 0 in photographs and paintings. A generator's own, and above all
    those with deltas, do not: they show as stripes and checkerboards of 2 and 4 pixels, a weave over all that is flat.
    The weave is the local mean of the detail at each place of the period, less the mean of these. Detail beyond
    +-`limit` counts as that much, so that edges leave no echo. The outermost period is what padding spoils, and
    becomes the mirror image of what it frames.
    """
    image = F.pad(image[..., period:-period, period:-period], (period,) * 4, mode="reflect")
    detail = image - _smooth(image, period)
    detail = detail if limit is None else detail.clamp(-limit, limit)
    places = _smooth(F.pixel_unshuffle(detail, period), 4).unflatten(1, (image.shape[1], period**2))
    weave = places - places.mean(2, keepdim=True)
    return image - F.pixel_shuffle(weave.flatten(1, 2), period)


def _smooth(x: Tensor, side: int) -> Tensor:
    """The means of squares of `side` pixels, and what lies between these."""
    return F.interpolate(F.avg_pool2d(x, side), x.shape[-2:], mode="bilinear")
