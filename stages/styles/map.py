"""Styles on a plane: along the two directions in which a collection's codes differ most (PCA), or by neighbours."""

from collections.abc import Iterable

import numpy as np

from models.regions import CODE_SIZE
from pipeline.errors import UserError
from stages.styles.blocks import Block

METHODS = ("pca", "tsne")
FEWEST = 5  # codes that have neighbours to speak of
NEIGHBOURS = 30  # of each code that t-SNE keeps near, where there are so many


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


def by_neighbours(codes: np.ndarray, seed: int) -> np.ndarray:
    """Places f32 [N, 2] of codes [N, 256] by t-SNE: likest codes lie together, others anywhere.

    The same codes in the same order give the same places. Raises: UserError(2) without scikit-learn (the extra `map`),
    or for fewer than FEWEST codes.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UserError(
            "--method tsne takes scikit-learn, which is not here; pip install 'hypernst[map]', or use --method pca", 2
        ) from error
    if len(codes) < FEWEST:
        raise UserError(f"{len(codes)} styles have too few neighbours for t-SNE; use --method pca", 2)
    near = min(NEIGHBOURS, (len(codes) - 1) // 3)
    return np.asarray(TSNE(metric="cosine", perplexity=near, random_state=seed).fit_transform(codes), np.float32)
