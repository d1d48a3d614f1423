"""The image discriminator of the stylisation phase: StyleGAN2's residual network.

It leaves out minibatch standard deviation, so that it works at batch 1. `base` narrows it for training without a GPU;
`load` builds the published networks from their files' tensors.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from models import recompute, state_dicts
from models.discriminators.layers import ConvLayer, Residual, fill, from_published
from models.stylegan_ops import EqualLinear


class ImageDiscriminator(nn.Module):
    """Scores images [N, 3, size, size] in [-1, 1] with one logit per image, [N, 1].

    Channels at resolution r are min(top, base / r); base 32768 and top 512 are the published network, base 4096 and
    top 128 train on a CPU. `channels` lists them instead, from `size` down to 4. `stddev` adds minibatch standard
    deviation, which published StyleGAN2 files need; `checkpointing` recomputes activations in the backward pass.
    """

    def __init__(
        self,
        size: int = 256,
        *,
        base: int = 32768,
        top: int = 512,
        stddev: bool = False,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"image discriminator size must be a power of two, at least 8, got {size}")
        self.size, self.stddev, self.checkpointing = size, stddev, False
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]
        channels = [max(1, min(top, base // side)) for side in sides] if channels is None else channels
        self.convs = nn.Sequential(ConvLayer(3, channels[0], 1), *(Residual(a, b) for a, b in pairwise(channels)))
        self.final_conv = ConvLayer(channels[-1] + int(stddev), channels[-1], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[-1] * 16, channels[-1], active=True), EqualLinear(channels[-1], 1)
        )

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "ImageDiscriminator":
        """Build from rosinality's `d` or the Swapping Autoencoder's `D.*` tensors; sizes are inferred.

        Raises: ValueError, in one line, when they are not those of such a network.
        """
        state, blur = from_published(tensors)
        state = _counted(state)
        depth = len(state_dicts.numbers(state, "convs.")) - 1
        what = f"a StyleGAN2 image discriminator for {4 << max(depth, 0)} px"
        names = ["convs.0.conv", *(f"convs.{i + 1}.skip.conv" for i in range(max(depth, 1)))]
        widths = [state_dicts.width(state, f"{name}.weight", what) for name in names]
        stddev = state_dicts.width(state, "final_conv.conv.weight", what, 1) == widths[-1] + 1
        return fill(partial(cls, 4 << depth, stddev=stddev, channels=widths), state, blur, what)

    def features(self, x: Tensor) -> Tensor:
        """Features [N, C, 4, 4] that the last layers read."""
        for layer in self.convs:
            x = recompute.run(layer, x, again=self.checkpointing)
        if self.stddev:
            n, _, h, w = x.shape
            group = next(g for g in (4, 3, 2, 1) if n % g == 0)
            spread = (x.reshape(group, n // group, -1).var(0, unbiased=False) + 1e-8).sqrt().mean(1)
            x = torch.cat([x, spread.view(-1, 1, 1, 1).repeat(group, 1, h, w)], 1)
        return self.final_conv(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 1] of x [N, 3, size, size]."""
        return self.final_linear(self.features(x).flatten(1))


def _counted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers in order: the Swapping Autoencoder names the layer of 512 px 512x512 and that of 128 px 2."""
    names = {key.split(".")[1] for key in state if re.match(r"convs\.\d+(x\d+)?\.", key)}
    sides = {name: int(name.split("x")[0]) for name in names}
    order = sorted(names, key=lambda n: (n != "0", "x" not in n, -sides[n] if "x" in n else sides[n]))
    place = {name: str(i) for i, name in enumerate(order)}
    return {re.sub(r"^convs\.(\w+)\.", lambda m: f"convs.{place.get(m[1], m[1])}.", key): t for key, t in state.items()}
