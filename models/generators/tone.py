"""What is done to a picture that a generator drew: it gets details of the photo, then a palette (beyond the paper)."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.generators import details, palette
from models.generators.details import Details
from models.generators.region_weights import RegionWeights


class Tone(NamedTuple):
    """By region: details' strength and what colours are multiplied by, [N, R, 1], and what is then added, [N, R, 3]."""

    detail: Tensor
    gain: Tensor
    offset: Tensor


def tone(image: Tensor, where: RegionWeights, colours: Tensor | None, found: Details | None) -> Tone:
    """The tone that an image [N, 3, S, S] needs, for a palette [N, R or more, 4] and the photo's details."""
    none = torch.zeros(len(image), where.region_count, 1).to(image)
    detail = none
    if found is not None:
        detail = details.strength(image, where, found)
        image = details.added(image, found, palette.faded(detail, where, image))
    gain, offset = (none + 1, none.repeat(1, 1, 3)) if colours is None else palette.change(image, where, colours)
    return Tone(detail, gain, offset)


def toned(image: Tensor, where: RegionWeights, tone: Tone, found: Details | None) -> Tensor:
    """The image [N, 3, S, S] in that tone."""
    detail, gain, offset = palette.faded(torch.cat(tone, 2), where, image).split((1, 1, 3), 1)
    if found is not None:
        image = details.added(image, found, detail)
    return image * gain + offset
