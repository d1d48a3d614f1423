"""FaRL face parsing (Zheng et al. 2022): the warps before and after the network (`models.parsing.farl_network`).

The network reads a 448 px square in which the face has a fixed place. LaPa's square comes from fitting the five points
to a template by a similarity; tanh compresses its outer part so that the whole image fits. CelebAMask's is FFHQ's
square, uncompressed.
Coordinates are pixels with centres at +0.5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.faces.alignment import quad_of

SIDE = 448
# Eyes, nose tip and mouth corners in facer's 512 px template.
TEMPLATE = ((196.0, 226.0), (316.0, 226.0), (256.0, 286.0), (220.0, 360.4), (292.0, 360.4))
CLAMP = 0.999  # upper limit of arctanh's argument, so that the warp's rim stays finite

Points = NDArray[np.float32]


@dataclass(frozen=True)
class Warp:
    """Where the network's square lies in an image.

    `matrix` [N, 3, 3] f64 maps image pixels to aligned ones. `factor` in [0, 1] is the share of the square, from its
    border inwards, that tanh compresses.
    """

    matrix: Tensor
    factor: float

    def grid(self, height: int, width: int) -> Tensor:
        """Sampling positions [N, 448, 448, 2] in the image of this size, in [-1, 1], of the network's input."""
        aligned = _unsqueeze(_centres(SIDE, SIDE) / SIDE * 2 - 1, self.factor)
        pixels = _apply(torch.linalg.inv(self.matrix), (aligned + 1) / 2 * SIDE)
        return (pixels / torch.tensor([width, height]) * 2 - 1).reshape(-1, SIDE, SIDE, 2).float()

    def inverse_grid(self, height: int, width: int) -> Tensor:
        """Sampling positions [N, height, width, 2] in the network's output, in [-1, 1], for each pixel of the image."""
        aligned = _apply(self.matrix, _centres(height, width)) / SIDE * 2 - 1
        return _squeeze(aligned, self.factor).reshape(-1, height, width, 2).float()

    def scaled(self, scale: float) -> "Warp":
        """The warp of the same image resized by `scale`."""
        shrink = torch.diag(torch.tensor([1 / scale, 1 / scale, 1.0], dtype=torch.float64))
        return Warp(self.matrix @ shrink, self.factor)


def lapa(points: Points) -> Warp:
    """The warp of the LaPa network for points [N, 5, 2]: eye, eye, nose, mouth corner, mouth corner."""
    return Warp(_similarity(points, np.array(TEMPLATE) / 512 * (SIDE - 1)), 0.8)


def celebm(points: Points) -> Warp:
    """The warp of the CelebAMask network for points [N, 5, 2]. Raises: ValueError when points coincide."""
    corners = np.array([[0, 0], [0, SIDE], [SIDE, SIDE], [SIDE, 0]], np.float64)
    return Warp(_similarity(np.stack([quad_of(p) + 0.5 for p in points]), corners), 0.0)


WARPS: dict[str, Callable[[Points], Warp]] = {"lapa": lapa, "celebm": celebm}


def sample(x: Tensor, grid: Tensor) -> Tensor:
    """Sample x [N, C, H, W] at grid [N, h, w, 2], zero outside: a network's input, or its logits back in the image."""
    return F.grid_sample(x, grid.to(x), mode="bilinear", padding_mode="zeros", align_corners=False)


class FaceParser:
    """A network with the warp of its `kind`: RGB [N, 3, 448, 448] in [0, 1] -> logits [N, C, h, w] of that square."""

    def __init__(self, network: Callable[[Tensor], Tensor], kind: str, classes: int) -> None:
        if kind not in WARPS:
            raise ValueError(f"FaRL head {kind!r} is unknown, expected one of {', '.join(WARPS)}")
        self.network, self.warp_of, self.classes = network, WARPS[kind], classes

    @torch.inference_mode()
    def logits(self, images: Tensor, points: Points, size: int | None = None) -> Tensor:
        """Logits [N, C, H, W], or of side `size`, of square RGB [N, 3, H, W] in [-1, 1] with points [N, 5, 2] in px.

        Outside the network's square all logits are 0. Raises: ValueError for a network of another number of classes.
        """
        height, width = images.shape[-2:]
        warp = self.warp_of(points)
        logits = self.network(sample((images + 1) / 2, warp.grid(height, width)))
        if logits.shape[1] != self.classes:
            raise ValueError(f"the FaRL network has {logits.shape[1]} classes, expected {self.classes}")
        if size is not None and size != height:
            warp, height, width = warp.scaled(size / height), size, size * width // height
        return sample(logits.float(), warp.inverse_grid(height, width))


def _similarity(points: NDArray[np.floating], target: NDArray[np.float64]) -> Tensor:
    """The least-squares rotation, scale and shift [N, 3, 3] f64 from points [N, k, 2] to target [k, 2]."""
    source, goal = torch.from_numpy(np.asarray(points, np.float64)), torch.from_numpy(target)
    origin, aim = source.mean(1, keepdim=True), goal.mean(0)
    s, t = torch.view_as_complex(source - origin), torch.view_as_complex(goal - aim)
    # With complex numbers a similarity is one product: t = turn * s.
    turn = (s.conj() * t).sum(1) / s.abs().square().sum(1)
    rows = torch.stack([turn.real, -turn.imag, turn.imag, turn.real], 1).reshape(-1, 2, 2)
    shift = aim - (rows @ origin.transpose(1, 2))[..., 0]
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(rows), 1, 3)
    return torch.cat([torch.cat([rows, shift[..., None]], 2), last], 1)


def _centres(height: int, width: int) -> Tensor:
    """x, y of every pixel's centre, [H*W, 2] f64."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).double()


def _apply(matrix: Tensor, spots: Tensor) -> Tensor:
    return spots @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 2]


def _squeeze(x: Tensor, factor: float) -> Tensor:
    """Map the whole plane into [-1, 1]: linear in the middle, tanh from 1 - factor outwards."""
    if not factor:
        return x
    rest = 1 - factor
    return torch.where(x.abs() > rest, x.sign() * (((x.abs() - rest) / factor).tanh() * factor + rest), x)


def _unsqueeze(x: Tensor, factor: float) -> Tensor:
    if not factor:
        return x
    rest = 1 - factor
    far = ((x.abs() - rest) / factor).clamp(-CLAMP, CLAMP).arctanh() * factor + rest
    return torch.where(x.abs() > rest, x.sign() * far, x)
