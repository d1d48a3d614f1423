"""The palette of an image: the mean colour and the contrast of each region (beyond the paper).

What deltas do to the colours of a picture depends on the portrait, and one forward pass cannot see its own result: dark
styles come out veiled, white paper yellow. So the result's palette is measured, and brought to the one that is meant.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.generators.region_weights import RegionWeights

FADE = 64  # positions of a side that regions are weighted at, so that two palettes fade over some 3 % of a side
EXPONENT, LEAST, MOST = 0.5, 0.8, 1.25  # of the change of contrast: how much of it is made, and its limits
EPSILON = 0.01


def measure(image: Tensor, shares: Tensor) -> Tensor:
    """Mean red, green and blue and the contrast of each region, [N, R, 4].

    image [N, 3, S, S] in [-1, 1]; shares [N, R, S, S] say how much of a pixel is of a region. Contrast is the deviation
    from the mean, of all three channels together.
    """
    total = shares.sum((2, 3)).clamp(min=1e-6)
    mean = torch.einsum("nrhw,nchw->nrc", shares, image) / total[..., None]
    squares = torch.einsum("nrhw,nchw->nr", shares, image.square()) / total
    contrast = (squares - mean.square().sum(2)).clamp(min=1e-8).div(image.shape[1]).sqrt()
    return torch.cat([mean, contrast[..., None]], 2)


def contrast(image: Tensor, where: RegionWeights) -> Tensor:
    """The contrast of each region of an image [N, 3, S, S]: [N, R, 1]."""
    return measure(image, where.weights(image.shape[-1]).to(image))[..., 3:]


def change(image: Tensor, where: RegionWeights, palette: Tensor) -> tuple[Tensor, Tensor]:
    """What regions are multiplied by, [N, R, 1], and what is then added to them, [N, R, 3], to come to a palette.

    It gives the image [N, 3, S, S] the mean colours of the palette [N, R or more, 4], and contrasts nearer to it.
    """
    own = measure(image, where.weights(image.shape[-1]).to(image))
    wanted = palette[:, : where.region_count].to(image)
    gain = ((wanted[..., 3:] + EPSILON) / (own[..., 3:] + EPSILON)).pow(EXPONENT).clamp(LEAST, MOST)
    return gain, wanted[..., :3] - gain * own[..., :3]


def faded(values: Tensor, where: RegionWeights, image: Tensor) -> Tensor:
    """Values of regions [N, R, C] at the pixels of an image, [N, C, S, S]; one region's fade into the next one's."""
    shares = F.interpolate(where.weights(FADE).to(image), image.shape[-2:], mode="bilinear")
    return (shares[:, :, None] * values.to(image)[..., None, None]).sum(1)
