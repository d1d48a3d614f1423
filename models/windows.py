"""Square windows that lie inside a region: found for every position at once with an integral image.

The paper keeps random patches whose "mean IoU" with the region is high. For a small patch in a large region that
ratio is tiny, so it is read as coverage, |mask in patch| / |patch| (section 3.2 and 3.5).
"""

import math

import numpy as np
from numpy.typing import NDArray

REGIONS = ("hair", "face", "background")  # the labels 0, 1, 2 of a region map
UNKNOWN = 255

Boxes = NDArray[np.int64]


def coverage(mask: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Share of `mask` (H, W) inside each `size` square, (H - size + 1, W - size + 1), indexed by the top left corner.

    A mask smaller than the window gives an empty array.
    """
    return _inside(mask, size) / float(size * size)


def draw(
    mask: NDArray[np.bool_], size: int, count: int, thresholds: tuple[float, ...], rng: np.random.Generator
) -> tuple[Boxes, NDArray[np.float64]] | None:
    """Draw `count` windows (x0, y0, x1, y1) uniformly among those whose coverage reaches a threshold.

    The thresholds are tried in order, the first that any position reaches is used. A position is drawn twice only when
    there are fewer than `count` of them. Returns boxes (count, 4) and their coverage (count,), or None where the
    region is missing.
    """
    inside, area = _inside(mask, size), size * size
    for threshold in thresholds:
        least = next(n for n in range(math.ceil(threshold * area) - 1, area + 2) if n / area >= threshold)
        positions = np.flatnonzero(inside >= least)
        if positions.size:
            break
    else:
        return None
    if positions.size >= count:
        picked = rng.choice(positions, count, replace=False)
    else:
        picked = np.concatenate([rng.permutation(positions), rng.choice(positions, count - positions.size)])
    y, x = np.unravel_index(picked, inside.shape)
    return np.stack([x, y, x + size, y + size], 1).astype(np.int64), inside[y, x] / area


def _inside(mask: NDArray[np.bool_], size: int) -> NDArray[np.int32]:
    """How many pixels of `mask` lie in each window."""
    import cv2  # here, as a command without work imports this module for its names

    if min(mask.shape) < size:
        return np.zeros((0, 0), np.int32)
    total = cv2.integral(np.ascontiguousarray(mask).view(np.uint8))
    rows = total[size:] - total[:-size]
    return rows[:, size:] - rows[:, :-size]
