"""The patch discriminator: whether patches share the style of a region (paper section 3.5, Eq. 4).

It is the Swapping Autoencoder's co-occurrence discriminator, rewritten from its published shapes.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from models import state_dicts
from models.discriminators.layers import ConvLayer, Residual, fill, from_published
from models.stylegan_ops import EqualLinear


class PatchDiscriminator(nn.Module):
    """Scores whether patches of `size` px share the style of reference patches (paper section 3.5, Eq. 4).

    `width` scales every channel count; 1 is the published 24.4M network, 0.3 about 2.2M. `channels` lists them
    instead, from `size` down to 4 px, then those of the widest layer.
    """

    def __init__(
        self, *, size: int = 32, width: float = 1.0, channels: Sequence[int] | None = None, hidden: int | None = None
    ) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"patch discriminator size must be a power of two, at least 8, got {size}")
        self.size = size
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]
        if channels is None:
            channels = [*(max(8, round(min(384, 4096 // side) * width)) for side in sides), max(8, round(768 * width))]
        hidden = max(8, round(2048 * width)) if hidden is None else hidden
        *inner, top = channels
        blocks: dict[str, nn.Module] = {"0": ConvLayer(3, inner[0], 3)}
        for side, (a, b) in zip(sides, pairwise(inner), strict=False):
            blocks[level(side)] = Residual(a, b)
        blocks |= {"5": Residual(inner[-1], top, down=False), "6": ConvLayer(top, inner[-1], 3, padded=False)}
        self.convs = nn.ModuleDict(blocks)
        sizes = (inner[-1] * 8, hidden, hidden, hidden // 2)
        hiddens = (EqualLinear(a, b, active=True) for a, b in pairwise(sizes))
        self.pairlinear = nn.Sequential(*hiddens, EqualLinear(sizes[-1], 1))

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "PatchDiscriminator":
        """Build from the Swapping Autoencoder's `Dpatch.*` tensors; patch size and channels are inferred.

        Raises: ValueError, in one line, when they are not those of such a network.
        """
        state, blur = from_published(tensors)
        sides = [s for s in (1024, 512, 256, 128, 64, 32, 16, 8) if f"convs.{level(s)}.skip.conv.weight" in state]
        what = f"a patch co-occurrence discriminator for {sides[0] if sides else 32} px"
        names = ["convs.0.conv", *(f"convs.{level(side)}.skip.conv" for side in sides), "convs.5.skip.conv"]
        widths = [state_dicts.width(state, f"{name}.weight", what) for name in names]
        hidden = state_dicts.width(state, "pairlinear.0.weight", what)
        return fill(partial(cls, size=sides[0] if sides else 32, channels=widths, hidden=hidden), state, blur, what)

    def features(self, patches: Tensor) -> Tensor:
        """Features [..., C, 2, 2] of patches [..., 3, size, size] in [-1, 1]."""
        x = patches.flatten(0, -4)
        for layer in self.convs.values():
            x = layer(x)
        return x.reshape(*patches.shape[:-3], *x.shape[1:])

    def score(self, reference: Tensor, features: Tensor) -> Tensor:
        """Logits [...] for `features` [..., C, 2, 2] sharing the style of `reference`, of the same shape."""
        return self.pairlinear(torch.cat([reference.flatten(-3), features.flatten(-3)], -1)).squeeze(-1)

    def forward(self, reference: Tensor, patches: Tensor) -> Tensor:
        """Logits [G, P] of patches [G, P, 3, s, s], each against its group's mean reference [G, R, 3, s, s]."""
        mean = self.features(reference).mean(1, keepdim=True)
        features = self.features(patches)
        return self.score(mean.expand_as(features), features)


def level(side: int) -> str:
    """The published name of the patch discriminator's layer that halves `side` px."""
    return f"{side}x{side}" if side > 64 else str(7 - int(math.log2(side)))
