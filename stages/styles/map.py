"""Styles on a plane: their codes along the two directions in which a collection differs most (PCA)."""

from collections.abc import Iterable

import numpy as np

from models.regions import CODE_SIZE
from stages.styles.blocks import Block


class Map:
    """The plane of some codes. The same codes give the same plane, and new ones can be put on it at once."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        count, total, products = 0, np.zeros(CODE_SIZE), np.zeros((CODE_SIZE, CODE_SIZE))
        for block in blocks:
            codes = block.codes.astype(np.float64)
            count, total, products = count + len(codes), total + codes.sum(0), products + codes.T @ codes
        self.middle = total / max(count, 1)
        spread = products / max(count, 1) - np.outer(self.middle, self.middle)
        axes = np.linalg.eigh(spread)[1][:, :-3:-1]
        largest = np.abs(axes).argmax(0)
        self.axes = axes * np.sign(axes[largest, [0, 1]])  # else the sign would be up to the linear algebra's library

    def place(self, codes: np.ndarray) -> np.ndarray:
        """Where codes [N, 256] of unit length lie: f32 [N, 2]."""
        return ((codes - self.middle) @ self.axes).astype(np.float32)
