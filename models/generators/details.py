"""The details of a photo: what its inversion lacks of its lightness (beyond the paper).

The generator draws no loose strand, no earring and not every wrinkle, whatever its deltas. So a share of what it left
out is added to what it draws: only lightness, for colours are the style's, without the grain of single pixels, which is
the style's as well, and as strong as the style's contrast.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.generators import palette
from models.generators.region_weights import RegionWeights

LUMA = (0.299, 0.587, 0.114)
MOST = 1.2  # times the inversion's contrast: a stronger style does not make details stronger than that
SPREAD = 9  # px over which the change that an edit makes is averaged
MOVED = 0.1  # lightness: where an edit changes the inversion by more, a detail has lost its place


class Details(NamedTuple):
    """A share of the lightness that an inversion lacks, [N, 1, S, S], and its contrast by region, [N, R, 1]."""

    lightness: Tensor
    contrast: Tensor


def details(image: Tensor, inversion: Tensor, where: RegionWeights, share: float) -> Details:
    """Of an image and its inversion, [N, 3, S, S] each in [-1, 1], the `share` (0 to 1) of what is lacking."""
    inversion = inversion.clamp(-1, 1)
    return Details(share * without_grain(_lightness(image - inversion)), palette.contrast(inversion, where))


def kept(found: Details, inversion: Tensor, edited: Tensor) -> Details:
    """Those that still belong to an edited inversion [N, 3, S, S]: where the edit changed little."""
    change = _lightness(edited - inversion.clamp(-1, 1)).abs()
    change = F.avg_pool2d(F.pad(change, [SPREAD // 2] * 4, mode="replicate"), SPREAD, 1)
    return found._replace(lightness=found.lightness * (1 - change / MOVED).clamp(min=0))


def strength(image: Tensor, where: RegionWeights, found: Details) -> Tensor:
    """What details are multiplied by in each region, [N, R, 1]: the image's contrast over the inversion's."""
    own = palette.contrast(image, where)
    return ((own + palette.EPSILON) / (found.contrast + palette.EPSILON)).clamp(max=MOST)


def added(image: Tensor, found: Details, strength: Tensor) -> Tensor:
    """The image [N, 3, S, S], which may be larger than the photo, with details of that strength [N, 1, S, S]."""
    lightness = found.lightness
    if image.shape[-1] != lightness.shape[-1]:
        lightness = F.interpolate(lightness, image.shape[-2:], mode="bicubic")
    return image + strength * lightness


def without_grain(lightness: Tensor) -> Tensor:
    """Lightness [N, 1, S, S] blurred by a binomial of 3 x 3: what changes from pixel to pixel goes."""
    kernel = torch.tensor((0.25, 0.5, 0.25)).to(lightness)
    return F.conv2d(F.pad(lightness, [1] * 4, mode="replicate"), kernel.outer(kernel)[None, None])


def _lightness(image: Tensor) -> Tensor:
    return (image * torch.tensor(LUMA).to(image)[:, None, None]).sum(1, keepdim=True)
