"""How well style codes find works of the same style: top-1 retrieval."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from models.encoders.aladin import Aladin
from pipeline import images
from stages.styles.blocks import Block, nearest, unit

SIDE = 256  # px that images are resized to first, so that crops have the same scale in all of them


def top1(a: Tensor, b: Tensor) -> float:
    """How often a search finds the same work's row in the other tensor first; the mean of both directions."""
    pairs = [codes.float().cpu().numpy() for codes in (a, b)]
    return (_first(*pairs) + _first(*pairs[::-1])) / 2


def _first(queries: NDArray[np.float32], codes: NDArray[np.float32]) -> float:
    works = [str(number) for number in range(len(codes))]
    found = nearest([Block(works, works, unit(codes))], queries, 1)
    return float(np.mean([found[work][0].key == name for work, name in enumerate(works)]))


def same_group(codes: Tensor, group: NDArray[np.str_]) -> float:
    """How often a work's nearest other work is of its own group, over the works whose group has others."""
    near = (F.normalize(codes) @ F.normalize(codes).T).fill_diagonal_(-2).argmax(1).cpu().numpy()
    others = np.array([np.count_nonzero(group == name) > 1 for name in group])
    return float((group[near] == group)[others].mean())


@torch.inference_mode()
def retrieval(net: Aladin, paths: Sequence[Path]) -> tuple[float, float]:
    """Top-1 of raw statistics and of codes: an image's top left quarter finds its bottom right one.

    Quarters have the scale of the codes' windows: 128 px of an image resized to 256.
    """
    half, device = SIDE // 2, next(net.parameters()).device
    corners: list[Tensor] = []
    for path in tqdm(paths, unit="image", mininterval=5):
        image = images.to_tensor(images.decode(path.read_bytes(), SIDE)).to(device)
        corners.append(net.statistics(torch.cat([image[..., :half, :half], image[..., half:, half:]]), half))
    a, b = torch.stack(corners).unbind(1)
    return top1(a, b), top1(net.head(a), net.head(b))
