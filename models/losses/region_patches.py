"""Patches of the stylised and the style image, matched by region."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import windows
from models.regions import REGION_COUNT


@dataclass(frozen=True)
class PatchGroups:
    """Boxes of G groups, a group being one region of one pair; each is [G, P, 4] as x0, y0, x1, y1.

    `fake` lies in the stylised image (by the content's map); `reference` and `real` are two samples of the style image.
    """

    sample: NDArray[np.int64]
    region: NDArray[np.int64]
    fake: windows.Boxes
    reference: windows.Boxes
    real: windows.Boxes

    def __len__(self) -> int:
        return len(self.sample)

    def on_images(self, map_side: int, image_side: int, size: int) -> "PatchGroups":
        """The boxes of maps of `map_side` px as boxes of `size` px on images of `image_side` px."""
        corners = (boxes[..., :2] * image_side // map_side for boxes in (self.fake, self.reference, self.real))
        inside = (np.minimum(corner, image_side - size) for corner in corners)
        return PatchGroups(self.sample, self.region, *(np.concatenate([c, c + size], -1) for c in inside))


def sample_patch_groups(
    content: NDArray[np.uint8],
    style: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    size: int = 32,
    count: int = 3,
    thresholds: tuple[float, ...] = (0.7, 0.5),
) -> PatchGroups:
    """Sample `count` windows per region for each pair of region maps [N, H, W].

    A region absent on either side is left out of the mean, and G may be 0: hair is only compared with hair.
    Raises: ValueError when there is not one style map per content map.
    """
    if len(content) != len(style):
        raise ValueError(f"{len(content)} content region maps for {len(style)} style region maps, expected pairs")
    groups: list[tuple[int, int]] = []
    boxes: list[list[windows.Boxes]] = [[], [], []]
    for sample, (content_map, style_map) in enumerate(zip(content, style, strict=True)):
        for region in range(REGION_COUNT):
            maps = (content_map, style_map, style_map)
            samples = [windows.sample_windows(m == region, size, count, thresholds, rng) for m in maps]
            sampled_boxes = [s[0] for s in samples if s is not None]
            if len(sampled_boxes) < len(samples):
                continue
            groups.append((sample, region))
            for kind, box in zip(boxes, sampled_boxes, strict=True):
                kind.append(box)
    index = np.array(groups, np.int64).reshape(-1, 2)
    fake, reference, real = (np.array(b, np.int64).reshape(-1, count, 4) for b in boxes)
    return PatchGroups(index[:, 0], index[:, 1], fake, reference, real)


def crops(images: Tensor, sample: NDArray[np.int64], boxes: windows.Boxes) -> Tensor:
    """Cut boxes [G, P, 4] of equal size out of images [N, C, H, W], group g from images[sample[g]]: [G, P, C, s, s]."""
    side = boxes[0, 0, 2] - boxes[0, 0, 0]
    inside = np.arange(side)
    index = np.broadcast_arrays(
        sample[:, None, None, None], boxes[:, :, 1, None, None] + inside[:, None], boxes[:, :, 0, None, None] + inside
    )
    image, y, x = torch.from_numpy(np.stack(index)).to(images.device)  # one gather: a GPU waits for no patch
    return images[image, :, y, x].permute(0, 1, 4, 2, 3)
