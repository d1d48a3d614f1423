"""The palette of an image: the mean colour and the contrast of each region (beyond the paper).

What deltas do to the colours of a picture depends on the portrait, and one forward pass cannot see its own result: dark
styles come out veiled, white paper yellow. So the result's palette is measured, and brought to the one that is meant.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.generators.region_weights import RegionWeights

FADE = 64  # positions of a side that regions are weighted at, so that two palettes fade over some 3 % of a side
EXPONENT, LEAST, MOST = 0.5, 0.8, 1.25  # of the change of contrast: how much of it is made, and its limits
EPSILON = 0.01


class Tone(NamedTuple):
    """What a picture's colours are multiplied by, [N, R, 1], and what is added to them, [N, R, 3], in each region."""

    gain: Tensor
    offset: Tensor


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


def tone(image: Tensor, where: RegionWeights, palette: Tensor) -> Tone:
    """What gives the image [N, 3, S, S] the mean colours of a palette [N, R or more, 4], and contrasts nearer to it."""
    own = measure(image, where.weights(image.shape[-1]).to(image))
    wanted = palette[:, : where.region_count].to(image)
    gain = ((wanted[..., 3:] + EPSILON) / (own[..., 3:] + EPSILON)).pow(EXPONENT).clamp(LEAST, MOST)
    return Tone(gain, wanted[..., :3] - gain * own[..., :3])


def toned(image: Tensor, where: RegionWeights, tone: Tone) -> Tensor:
    """The image [N, 3, S, S] in that tone; one region's fades into the next one's."""
    fade = F.interpolate(where.weights(FADE).to(image), image.shape[-2:], mode="bilinear")
    gain, offset = (torch.einsum("nrhw,nrc->nchw", fade, x.to(image)) for x in tone)
    return image * gain + offset
