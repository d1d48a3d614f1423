"""The two critics of the stylisation pass: one judges whole images, one whether patches share a region's style.

Both are StyleGAN2 residual networks. The image critic leaves minibatch deviation out, so that batch 1 is safe; the
patch critic is the Swapping Autoencoder's co-occurrence discriminator, rewritten from its published shapes. `width`
and `base` narrow them for training without a GPU; at their defaults they load the published files (`from_published`).
"""

import math
import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2.0)


class EqualConv(nn.Module):
    """A convolution whose weight is kept at unit variance and scaled in use (equalised learning rate)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.stride, self.padding = 1 / math.sqrt(inputs * kernel**2), stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, C, H, W)."""
        return F.conv2d(x, self.weight * self.scale, None, self.stride, self.padding)


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate and, if `active`, the scaled leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, *, active: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))
        self.scale, self.active = 1 / math.sqrt(inputs), active

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., inputs) to (..., outputs)."""
        x = F.linear(x, self.weight * self.scale, self.bias)
        return F.leaky_relu(x, 0.2) * GAIN if self.active else x


class Bias(nn.Module):
    """Adds a bias a channel, then the leaky rectifier times sqrt 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Activate x (N, C, H, W)."""
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * GAIN


class ConvLayer(nn.Module):
    """Blur (when halving), convolution, activation: StyleGAN2's unit of construction."""

    blur: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, active: bool = True,
                 padded: bool = True) -> None:
        super().__init__()
        blur = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("blur", (blur[:, None] * blur / blur.sum() ** 2)[None, None], persistent=False)
        self.down, self.border = down, ((kernel + 2) // 2, (kernel + 1) // 2)
        padding = kernel // 2 if padded and not down else 0
        self.conv = EqualConv(inputs, outputs, kernel, stride=2 if down else 1, padding=padding)
        self.act: nn.Module = Bias(outputs) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W), halving its sides if this layer does."""
        if self.down:
            x = F.pad(x, self.border * 2)
            channels = x.shape[1]
            x = F.conv2d(x, self.blur.expand(channels, 1, 4, 4), groups=channels)
        y: Tensor = self.act(self.conv(x))
        return y


class Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 skip, the sum over sqrt 2."""

    def __init__(self, inputs: int, outputs: int, *, down: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=down)
        self.skip = ConvLayer(inputs, outputs, 1, down=down, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, inputs, H, W) to (N, outputs, H / 2, W / 2), or at its own size without `down`."""
        y: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / GAIN
        return y


class ImageDiscriminator(nn.Module):
    """Scores images (N, 3, size, size) in [-1, 1] with one logit each, (N, 1).

    Channels at resolution r are min(top, base / r); base 32768 and top 512 are the published network, base 4096 and
    top 128 one that trains on a CPU. `stddev` adds minibatch deviation, which only published StyleGAN2 files need.
    """

    def __init__(self, size: int = 256, *, base: int = 32768, top: int = 512, stddev: bool = False) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"image discriminator size has to be a power of two from 8, got {size}")
        self.stddev = stddev
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]
        channels = [min(top, base // side) for side in sides]
        self.convs = nn.Sequential(ConvLayer(3, channels[0], 1), *(Residual(a, b) for a, b in pairwise(channels)))
        self.final_conv = ConvLayer(channels[-1] + int(stddev), channels[-1], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[-1] * 16, channels[-1], active=True), EqualLinear(channels[-1], 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1) of x (N, 3, size, size)."""
        x = self.convs(x)
        if self.stddev:
            n, _, h, w = x.shape
            group = min(n, 4)
            spread = (x.view(group, n // group, -1).var(0, unbiased=False) + 1e-8).sqrt().mean(1)
            x = torch.cat([x, spread.view(-1, 1, 1, 1).repeat(group, 1, h, w)], 1)
        logits: Tensor = self.final_linear(self.final_conv(x).flatten(1))
        return logits


class PatchDiscriminator(nn.Module):
    """Scores whether 32 px patches share the style of reference patches (paper section 3.5, equation 4).

    `width` scales every channel count; 1 is the published 24.4M network, 0.3 about 2.2M.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        c32, c16, c8, top, hidden = (max(8, round(c * width)) for c in (128, 256, 384, 768, 2048))
        self.convs = nn.ModuleDict({
            "0": ConvLayer(3, c32, 3),
            "2": Residual(c32, c16),
            "3": Residual(c16, c8),
            "4": Residual(c8, c8),
            "5": Residual(c8, top, down=False),
            "6": ConvLayer(top, c8, 3, padded=False),
        })
        sizes = (c8 * 8, hidden, hidden, hidden // 2)
        hiddens = (EqualLinear(a, b, active=True) for a, b in pairwise(sizes))
        self.pairlinear = nn.Sequential(*hiddens, EqualLinear(sizes[-1], 1))

    def features(self, patches: Tensor) -> Tensor:
        """Features (..., C, 2, 2) of patches (..., 3, 32, 32) in [-1, 1]."""
        x = patches.flatten(0, -4)
        for layer in self.convs.values():
            x = layer(x)
        return x.reshape(*patches.shape[:-3], *x.shape[1:])

    def score(self, reference: Tensor, features: Tensor) -> Tensor:
        """Logits (...,) that `features` (..., C, 2, 2) go with `reference` of the same shape."""
        logits: Tensor = self.pairlinear(torch.cat([reference.flatten(-3), features.flatten(-3)], -1))
        return logits.squeeze(-1)

    def forward(self, reference: Tensor, patches: Tensor) -> Tensor:
        """Logits (G, P) of patches (G, P, 3, 32, 32), each against its group's mean reference (G, R, 3, 32, 32)."""
        mean = self.features(reference).mean(1, keepdim=True)
        features = self.features(patches)
        return self.score(mean.expand_as(features), features)


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published state dict (Swapping Autoencoder, or rosinality's StyleGAN2 under `d`) to this module's keys.

    The blur kernels are constants here and are left out; so are prefixes up to `convs.`, `final_` and `pairlinear.`.
    """
    out: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.endswith("kernel"):
            continue
        key = re.sub(r"^(Dpatch|D)\.", "", key).removeprefix("stylegan2_D.")
        key = key.replace(".Conv.", ".conv.").replace(".Act.", ".act.")
        if not key.startswith(("final_linear", "pairlinear")):
            key = re.sub(r"\.[01]\.weight$", ".conv.weight", key)
            key = re.sub(r"\.[12]\.bias$", ".act.bias", key)
        out[key] = value
    return out
