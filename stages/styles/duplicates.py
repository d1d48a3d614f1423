"""Near duplicates and outliers of a collection.

A code tells the style, not the picture: two drawings by one hand may have likelier codes than two copies of a painting.
So the likest styles of each are candidates, and those of them are duplicates whose pictures correlate.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import images
from stages.styles.blocks import Block, Found, nearest

ROWS = 512  # styles whose likest ones are looked for at a time
NEAR = 8  # likest ones of each style that are compared with it
SAME = 0.925  # correlation from which two pictures are copies of one (bench/results.md)
SIDE, LEAST = 32, 21  # px of a small picture, and the least of another that may be a part of it


class Pair(NamedTuple):
    """Two styles by key, the cosine of their codes, and the correlation of their pictures."""

    first: str
    second: str
    likeness: float
    correlation: float


def compare(
    blocks: Iterable[Block], outliers: int, pictures: Callable[[Sequence[str]], Iterable[bytes]]
) -> tuple[list[Pair], list[Found]]:
    """The near duplicates, the likest first, and the styles that are least like any other, these first.

    `pictures` gives the encoded pictures of keys. Time grows with the square of the number of styles; memory holds
    their codes once.
    """
    blocks, lone = list(blocks), list[Found]()
    candidates: dict[tuple[str, str], float] = {}
    for block in blocks:
        for start in range(0, len(block.keys), ROWS):
            rows = slice(start, start + ROWS)
            likest = nearest(blocks, block.codes[rows], NEAR + 1)
            for key, title, found in zip(block.keys[rows], block.titles[rows], likest, strict=True):
                others = {other.key: other.likeness or 0.0 for other in found if other.key != key}
                candidates |= {(min(key, name), max(key, name)): likeness for name, likeness in others.items()}
                if others:
                    lone.append(Found(key, title, max(others.values())))
    lone.sort(key=lambda found: (found.likeness, found.key))
    return _copies(candidates, pictures), lone[:outliers]


def _copies(
    candidates: Mapping[tuple[str, str], float], pictures: Callable[[Sequence[str]], Iterable[bytes]]
) -> list[Pair]:
    keys = sorted({key for pair in candidates for key in pair})
    small = dict(zip(keys, map(_small, pictures(keys)), strict=True))
    pairs = [Pair(*pair, like, correlation(small[pair[0]], small[pair[1]])) for pair, like in candidates.items()]
    alike = (pair for pair in pairs if pair.correlation >= SAME)
    return sorted(alike, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """How two grey pictures u8 [32, 32] correlate, at best: one may be a part of the other, mirrored, or lighter."""
    best = -1.0
    for whole, other in ((a, b), (b, a)):
        for side in range(SIDE, LEAST - 1, -1):
            part = cv2.resize(other, (side, side), interpolation=cv2.INTER_AREA)
            for view in (part, np.ascontiguousarray(part[:, ::-1])):
                best = max(best, float(cv2.matchTemplate(whole, view, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _small(picture: bytes) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(images.decode(picture), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
