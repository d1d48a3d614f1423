"""LPIPS v0.1 (Zhang et al. 2018): how different two images are in a network's features; the paper's content measure."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.backbones.trunks import Trunk

TRUNKS: Mapping[str, str] = {"alex": "alex", "vgg": "vgg16"}
EPSILON = 1e-10


class LPIPS(nn.Module):
    """The perceptual distance of image pairs. Frozen, but gradients reach the images.

    `net` is "alex" or "vgg"; `tensors` holds the trunk and `lin.{i}.weight` [1, C, 1, 1].
    None leaves random weights, for tests.
    """

    def __init__(self, net: str, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        if net not in TRUNKS:
            raise ValueError(f"LPIPS net {net!r} is unknown, expected one of {', '.join(TRUNKS)}")
        self.trunk = Trunk(TRUNKS[net], tensors)
        widths = [c.outputs for c in self.trunk.layout if c.tap]
        for i, width in enumerate(widths):
            lin = torch.rand(1, width, 1, 1) / width if tensors is None else tensors.get(f"lin.{i}.weight")
            if lin is None or lin.shape != (1, width, 1, 1):
                got = "nothing" if lin is None else list(lin.shape)
                raise ValueError(f"LPIPS {net}: lin.{i}.weight has to be [1, {width}, 1, 1], got {got}")
            self.register_buffer(f"lin_{i}", lin.clone().float())
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> list[Tensor]:
        """Unit-length features of x [N, 3, H, W] in [-1, 1]; reuse them when one side of the pair stays the same."""
        return [f / (f.square().sum(1, keepdim=True).sqrt() + EPSILON) for f in self.trunk(x)]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [N] of two lists of features; either side may hold a single image."""
        terms = [
            ((fa - fb).square() * self.get_buffer(f"lin_{i}")).sum(1).mean((1, 2))
            for i, (fa, fb) in enumerate(zip(a, b, strict=True))
        ]
        return torch.stack(terms).sum(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [N] of a and b, each [N, 3, H, W] in [-1, 1]."""
        return self.distance(self.features(a), self.features(b))
