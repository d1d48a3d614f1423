"""Near duplicates and outliers of a collection, by the cosine of every style's code to that of every other."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stages.styles.blocks import Block, Found

ALIKE = 0.95  # cosine from which two styles count as duplicates: no two of the paintings have more than 0.935
ROWS = 2048  # compared with as many others at a time


class Pair(NamedTuple):
    """Two styles by key, and their cosine."""

    first: str
    second: str
    likeness: float


def compare(blocks: Iterable[Block], outliers: int, alike: float = ALIKE) -> tuple[list[Pair], list[Found]]:
    """The pairs from `alike` on, the likest first, and the styles that are least like any other, these first.

    Time grows with the square of the number of styles; memory holds their codes once.
    """
    tiles = [
        Block(block.keys[i : i + ROWS], block.titles[i : i + ROWS], block.codes[i : i + ROWS])
        for block in blocks
        for i in range(0, len(block.keys), ROWS)
    ]
    nearest = [np.full(len(tile.keys), -np.inf, np.float32) for tile in tiles]
    pairs: list[Pair] = []
    for i, a in enumerate(tiles):
        for j, b in enumerate(tiles[i:], i):
            likeness = a.codes @ b.codes.T
            if i == j:
                np.fill_diagonal(likeness, -np.inf)
            np.maximum(nearest[i], likeness.max(1), out=nearest[i])
            np.maximum(nearest[j], likeness.max(0), out=nearest[j])
            rows = zip(*np.nonzero(likeness >= alike), strict=True)
            pairs += [Pair(a.keys[x], b.keys[y], float(likeness[x, y])) for x, y in rows if i != j or x < y]
    pairs.sort(key=lambda pair: (-pair.likeness, pair.first, pair.second))
    likeness = np.concatenate(nearest) if nearest else np.zeros(0)
    names = [name for tile in tiles for name in zip(tile.keys, tile.titles, strict=True)]
    lone = np.argsort(likeness, kind="stable")[: outliers if len(names) > 1 else 0]
    return pairs, [Found(names[i][0], names[i][1], float(likeness[i])) for i in lone]
