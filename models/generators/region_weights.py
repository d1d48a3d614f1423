"""Where each region's own weight deltas act: a kernel that depends on the position, by the content's region map.

A delta changes a kernel everywhere, so one set of deltas gives an image one style. With one set per region, the output
at each position is the sum of the regions' outputs, weighted by how much of the position each region covers.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from models.regions import REGION_COUNT

FEATHER = 5  # px of the map over which one region fades into the next
SMOOTH = 2  # positions that a fade is wide at least, at coarse resolutions
LEAST = 0.05  # a region whose weight at a position is below this is ignored there


def region_count(region: Tensor) -> int:
    """How many regions have deltas: hair, face, background, and last the unknown pixels if a map has any."""
    return REGION_COUNT + (not region.is_meta and bool((region >= REGION_COUNT).any()))


class RegionWeights:
    """The weights of the regions of maps u8 [N, H, W] at any resolution; `region_count` is their number.

    CUDA multiplies every place by every region's kernel: where a region lies would be asked for each of each sample,
    and each answer would keep the GPU waiting. For other devices the places are found on the CPU.
    """

    def __init__(self, region: Tensor) -> None:
        if region.is_meta:  # memory is being counted: any map is good enough
            side = region.shape[-1]
            thirds = torch.arange(side, device="cpu").mul(3).floor_divide(side).to(torch.uint8)
            region = thirds.expand(*region.shape[:2], side)
        self.everywhere = region.is_cuda  # whether each region's kernel is computed at every place
        region = region if self.everywhere else region.cpu()
        self.region_count = region_count(region)
        onehot = F.one_hot(region.long().clamp(max=REGION_COUNT), self.region_count).permute(0, 3, 1, 2).float()
        self._full = F.avg_pool2d(F.pad(onehot, [FEATHER // 2] * 4, mode="replicate"), FEATHER, 1)
        self._weights: dict[int, Tensor] = {}
        self._members: dict[int, list[tuple[int, int, Tensor, Tensor]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that it holds at most, once it was used at every resolution."""
        return 5 * self._full.nbytes

    def weights(self, side: int) -> Tensor:
        """Weight of each region at each position of a square: [N, region_count, side, side], with sum 1.

        They are on the maps' device where that is CUDA, else on the CPU.
        """
        if side not in self._weights:
            fits = side <= self._full.shape[-1]
            shares = (
                F.adaptive_avg_pool2d(self._full, side)
                if fits
                else F.interpolate(self._full, (side, side), mode="bilinear")
            )
            if FEATHER * side < SMOOTH * self._full.shape[-1]:  # else a delta's edge is a step that lies on the grid
                shares = F.avg_pool2d(F.pad(shares, [1] * 4, mode="replicate"), 3, 1)
            shares = torch.where(shares < LEAST, 0.0, shares)
            self._weights[side] = shares / shares.sum(1, keepdim=True)
        return self._weights[side]

    def convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Multiply the channels x [N, in, S, S] at each position by its regions' kernels [N, region_count, out, in].

        Gives [N, out, S, S]. Off CUDA a region is computed only where it has a weight.
        """
        n, _, side, _ = x.shape
        flat = x.flatten(2)
        if self.everywhere:
            shares = self.weights(side).to(x).flatten(2)
            parts = (flat[:, None] * shares[:, :, None]).flatten(1, 2)
            return torch.bmm(kernels.transpose(1, 2).flatten(2), parts).to(x.dtype).unflatten(2, (side, side))
        out = [torch.zeros(kernels.shape[2], side * side, dtype=x.dtype, device=x.device) for _ in range(n)]
        for sample, region, where, weight in self._groups(side, x.device):
            y = kernels[sample, region] @ flat[sample].index_select(1, where)
            out[sample].index_add_(1, where, y.to(x.dtype) * weight.to(x.dtype))
        return torch.stack(out).unflatten(2, (side, side))

    def blend(self, images: Tensor) -> Tensor:
        """Blend the images of all regions, [N * region_count, C, S, S], by their weights: [N, C, S, S]."""
        by_region = images.unflatten(0, (-1, self.region_count))
        return (by_region * self.weights(by_region.shape[-1]).to(by_region)[:, :, None]).sum(1)

    def _groups(self, side: int, device: torch.device) -> list[tuple[int, int, Tensor, Tensor]]:
        if side not in self._members:
            members = _members(self.weights(side))
            self._members[side] = [(n, r, where.to(device), weight.to(device)) for n, r, where, weight in members]
        return self._members[side]


def _members(weights: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """For each sample and region present: its positions in the flattened square, and its weights there."""
    for n, sample in enumerate(weights.flatten(2)):
        for r, weight in enumerate(sample):
            where = weight.nonzero()[:, 0]
            if len(where):
                yield n, r, where, weight[where]
