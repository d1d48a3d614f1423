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

SIDE = 256  # px that images are resized to first, so that crops have the same scale in all of them


def top1(a: Tensor, b: Tensor) -> float:
    """How often the nearest row of the other tensor (by cosine) is the same work's; the mean of both directions."""
    near = F.normalize(a) @ F.normalize(b).T
    truth = torch.arange(len(a), device=near.device)
    return float((near.argmax(1) == truth).float().mean() + (near.argmax(0) == truth).float().mean()) / 2


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
