"""Square windows inside a region, found for all positions at once with an integral image.

The paper keeps random patches whose "mean IoU" with the region is high. For a small patch in a large region the IoU is
tiny, so it is read as coverage: |mask in patch| / |patch| (sections 3.2 and 3.5).
"""

import math

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.int64]


def coverage(mask: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Share of `mask` [H, W] inside each `size` square, [H - size + 1, W - size + 1], indexed by the top left corner.

    A mask smaller than the window gives an empty array.
    """
    return _inside(mask, size) / float(size * size)


def sample_windows(
    mask: NDArray[np.bool_], size: int, count: int, thresholds: tuple[float, ...], rng: np.random.Generator
) -> tuple[Boxes, NDArray[np.float64]] | None:
    """Sample `count` windows (x0, y0, x1, y1) uniformly from those whose coverage reaches a threshold.

    The thresholds are tried in order; the first that any position reaches is used. A position is sampled twice only if
    there are fewer than `count` of them. Returns boxes [count, 4] and their coverage [count], or None if the region is
    missing.
    """
    import cv2  # imported here because commands without work import this module

    inside, area = _inside(mask, size), size * size
    for threshold in thresholds:
        least = next(n for n in range(math.ceil(threshold * area) - 1, area + 2) if n / area >= threshold)
        enough = inside >= least
        # Counted per row, so that only the rows of the sampled windows are searched.
        counts = cv2.reduce(enough.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() if enough.size else []
        until = np.cumsum(counts)
        total = int(until[-1]) if enough.size else 0
        if total:
            break
    else:
        return None
    if total >= count:
        chosen = rng.choice(total, count, replace=False)
    else:
        chosen = np.concatenate([rng.permutation(total), rng.choice(total, count - total)])
    y = np.searchsorted(until, chosen, "right")
    in_row = counts[y]
    nth = chosen - until[y] + np.cumsum(in_row)  # among all windows in the rows `y`, row after row
    x = np.flatnonzero(enough[y])[nth] - np.arange(count) * enough.shape[1]
    boxes = np.empty((count, 4), np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = x, y, x + size, y + size
    return boxes, inside[y, x] / area


def _inside(mask: NDArray[np.bool_], size: int) -> NDArray[np.int32]:
    """How many pixels of `mask` lie in each window, [H - size + 1, W - size + 1]."""
    import cv2  # imported here because commands without work import this module

    if min(mask.shape) < size:
        return np.zeros((0, 0), np.int32)
    total = cv2.integral(np.ascontiguousarray(mask).view(np.uint8))
    rows = (total[size:] - total[:-size]).ravel()
    # Also across the ends of rows, where the differences mean nothing: one long loop is faster than many short ones.
    inside = np.empty_like(rows)
    np.subtract(rows[size:], rows[:-size], out=inside[:-size])
    return inside.reshape(-1, total.shape[1])[:, :-size]
