"""What NNST optimises on: VGG16's hypercolumns, nearest neighbours among them, and the Laplacian pyramid."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MATRIX = 16384  # positions of content times style in one piece of the matrix of distances: its square
PIECE = 4096  # positions whose distances are in memory at once in the last pass; it does not change the result
Maps = Sequence[Tensor]
Features = Callable[[Tensor], Maps]  # images [1, 3, H, W] to feature maps [1, C, h, w]


def rotations(style: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """The image turned by 0, 90, 180 and 270 degrees, and whether its maps are to be transposed back."""
    yield style, False
    yield style.flip(2).transpose(2, 3), True
    yield style.flip((2, 3)), False
    yield style.flip(3).transpose(2, 3), True


def hypercolumns(maps: Maps, size: Sequence[int]) -> Tensor:
    """Maps [1, C, h, w], each divided by its channels, at a quarter of the image's `size`: [1, sum of C, H, W]."""
    quarter = [side // 4 for side in size]
    return torch.cat([F.interpolate(m / m.shape[1], quarter, mode="bilinear", align_corners=True) for m in maps], 1)


def turned_hypercolumns(features: Features, style: Tensor) -> Tensor:
    """The hypercolumns of all four rotations, one below the other."""
    turned = [(hypercolumns(features(x), x.shape[2:]), back) for x, back in rotations(style)]
    return torch.cat([h.transpose(2, 3) if back else h for h, back in turned], 2)


def turned_maps(features: Features, style: Tensor) -> list[Tensor]:
    """The feature maps of all four rotations, one below the other."""
    turned = [[m.transpose(2, 3) if back else m for m in features(x)] for x, back in rotations(style)]
    return [torch.cat(maps, 2) for maps in zip(*turned, strict=True)]


def unit_columns(x: Tensor) -> Tensor:
    """Columns [C, N] of length 1; the squared lengths are clamped to [1e-8, 1e8] first."""
    return x / x.square().sum(0, keepdim=True).clamp(1e-8, 1e8).sqrt()


def _centred(x: Tensor) -> Tensor:
    return unit_columns(x - x.mean(1, keepdim=True))


def nearest(content: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """For each column of content [C, N] the index of the nearest of style [C, M], and the distance, both [N].

    The distance is 1 - cosine, each set about its mean. As in the published code the content comes in pieces, each
    about its own mean, so that the matrix of distances has at most about 16384 x 16384 entries.
    """
    piece = MATRIX // max(1, style.shape[1] // MATRIX)
    theirs = _centred(style)
    found = [(_centred(part).T @ theirs).max(1) for part in content.split(piece, 1)]
    return torch.cat([f.indices for f in found]), 1 - torch.cat([f.values for f in found])


def matched(content: Tensor, style: Tensor) -> Tensor:
    """Hypercolumns of the shape of content's, each replaced by the nearest of style's (not centred)."""
    index, _ = nearest(content[0].flatten(1), style[0].flatten(1))
    return style[0].flatten(1)[:, index].unflatten(1, content.shape[2:])[None]


def cosine_loss(own: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cosine over the positions of two maps [1, C, h, w], not centred."""
    a, b = (unit_columns(x[0].flatten(1)) for x in (own, target))
    return (1 - (a * b).sum(0)).mean()


def nearest_loss(own: Tensor, style: Tensor) -> Tensor:
    """Mean distance of the columns of own [C, N] to the nearest of style [C, M]; both sets about their means."""
    ours, theirs = _centred(own), _centred(style)
    with torch.no_grad():
        index = torch.cat([(part.T @ theirs).argmax(1) for part in ours.split(PIECE, 1)])
    return (1 - (ours * theirs[:, index]).sum(0)).mean()


def decompose(image: Tensor, levels: int) -> list[Tensor]:
    """The Laplacian pyramid [1, 3, h, w] of an image: `levels` of detail, finest first, then the rest."""
    pyramid = []
    for _ in range(levels):
        half = F.interpolate(image, (image.shape[2] // 2, image.shape[3] // 2), mode="bilinear", align_corners=False)
        pyramid.append(image - _resize(half, image))
        image = half
    return [*pyramid, image]


def compose(pyramid: Sequence[Tensor]) -> Tensor:
    """The image of a pyramid, or of its levels from one on: then the image at that level's size."""
    image = pyramid[-1]
    for detail in reversed(pyramid[:-1]):
        image = detail + _resize(image, detail)
    return image


def _resize(image: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(image, like.shape[2:], mode="bilinear", align_corners=False)
