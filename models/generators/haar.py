"""The Haar transform, by which MobileStyleGAN doubles its sides, and the checkerboard that deltas leave there."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # coefficients: side of the squares over which the diagonal detail is averaged


def inverse_haar(x: Tensor) -> Tensor:
    """Invert one Haar level: [N, 4C, H, W] (C low-pass, then C x 3 details) -> [N, C, 2H, 2W]."""
    n, channels, h, w = x.shape
    c = channels // 4
    low, detail = x[:, :c], x[:, c:].reshape(n, c, 3, h, w)
    rows, columns, both = detail.unbind(2)
    a, b, p, q = low + rows, low - rows, columns + both, columns - both
    quads = torch.stack([a + p, a - p, b + q, b - q], dim=2).mul(0.5)
    return F.pixel_shuffle(quads.reshape(n, 4 * c, h, w), 2)


def haar(x: Tensor) -> Tensor:
    """Apply one Haar level: [N, C, 2H, 2W] -> [N, 4C, H, W], the inverse of `inverse_haar`."""
    n, c, h, w = x.shape
    tl, tr, bl, br = F.pixel_unshuffle(x, 2).reshape(n, c, 4, h // 2, w // 2).unbind(2)
    low = (tl + tr + bl + br) / 2
    detail = torch.stack([(tl + tr - bl - br) / 2, (tl - tr + bl - br) / 2, (tl - tr - bl + br) / 2], dim=2)
    return torch.cat([low, detail.reshape(n, 3 * c, h // 2, w // 2)], dim=1)


def without_checkerboard(image: Tensor) -> Tensor:
    """An image [N, C, 2H, 2W] without the mean of its diagonal detail over squares of 16 pixels.

    That mean is a checkerboard of single pixels, which photographs and paintings do not have. Deltas move the mean of
    each channel of a wavelet image, this detail's too, and so add one.
    """
    detail = haar(image)
    c, (h, w) = image.shape[1], detail.shape[-2:]
    both = detail[:, c + 2 :: 3]
    mean = F.interpolate(F.avg_pool2d(both, min(BLOCK, h, w)), (h, w), mode="bilinear") / 2
    return image - F.pixel_shuffle(torch.stack([mean, -mean, -mean, mean], 2).flatten(1, 2), 2)
