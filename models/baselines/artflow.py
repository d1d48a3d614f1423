"""ArtFlow (An et al. 2021): an invertible network, whose latents take the style's statistics. No encoder, no decoder.

The code has no licence: this follows the paper's equations and the layout of the published files.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
from models.baselines.vgg19 import moments, normalised, symmetric, unit

FLOWS, BLOCKS, WIDTH = 8, 2, 512
MULTIPLE = 2**BLOCKS  # of an image's sides
CUT = 1e-5  # singular values below are left out


class ActNorm(nn.Module):
    """Scale and shift of each channel; unset ones are set from the first batch, to mean 0 and std 1."""

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))
        self._asked = False  # the buffer, once: asking a GPU waits for it

    def forward(self, x: Tensor) -> Tensor:
        if not self._asked and not self.initialized:
            with torch.no_grad():
                std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
                self.loc.copy_(-mean)
                self.scale.copy_(1 / (std + 1e-6))
                self.initialized.fill_(1)
        self._asked = True
        return self.scale * (x + self.loc)

    def reverse(self, y: Tensor) -> Tensor:
        """The input of an output."""
        return y / self.scale - self.loc


class InvConv(nn.Module):
    """An invertible 1x1 convolution, its matrix as a product of triangular ones."""

    w_p: Tensor
    u_mask: Tensor
    l_mask: Tensor
    s_sign: Tensor
    l_eye: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.w_l = nn.Parameter(lower)
        self.w_s = nn.Parameter(diagonal.abs().log())
        self.w_u = nn.Parameter(upper.triu(1))
        for name, value in (
            ("w_p", permutation), ("u_mask", torch.ones_like(upper).triu(1)),
            ("l_mask", torch.ones_like(upper).tril(-1)),
            ("s_sign", diagonal.sign()), ("l_eye", torch.eye(channels)),
        ):  # fmt: skip
            self.register_buffer(name, value)

    def matrix(self) -> Tensor:
        """The composed matrix [C, C]."""
        lower = self.w_l * self.l_mask + self.l_eye
        upper = self.w_u * self.u_mask + torch.diag(self.s_sign * self.w_s.exp())
        return self.w_p @ lower @ upper

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.matrix()[:, :, None, None])

    def reverse(self, y: Tensor) -> Tensor:
        """The input of an output."""
        return F.conv2d(y, self.matrix().inverse()[:, :, None, None])


class ScaledConv(nn.Module):
    """A 3x3 convolution, padded with ones, with a learnt scale of each output channel; starts as zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.conv = nn.Conv2d(inputs, outputs, 3)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (1, 1, 1, 1), value=1.0)) * (3 * self.scale).exp()


class Coupling(nn.Module):
    """Adds to the second half of the channels what a network makes of the first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        first, second = nn.Conv2d(half, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 1)
        for conv in (first, second):
            nn.init.normal_(conv.weight, 0, 0.05)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), ScaledConv(WIDTH, half))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def reverse(self, y: Tensor) -> Tensor:
        """The input of an output."""
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


class Flow(nn.Module):
    """Three invertible steps, one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.actnorm, self.invconv, self.coupling = ActNorm(channels), InvConv(channels), Coupling(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.coupling(self.invconv(self.actnorm(x)))

    def reverse(self, y: Tensor) -> Tensor:
        """The input of an output."""
        return self.actnorm.reverse(self.invconv.reverse(self.coupling.reverse(y)))


class Block(nn.Module):
    """Squares of 2 x 2 pixels become channels, then the flows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.flows = nn.ModuleList(Flow(4 * channels) for _ in range(FLOWS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, 2)
        for flow in self.flows:
            x = flow(x)
        return x

    def reverse(self, y: Tensor) -> Tensor:
        """The input of an output."""
        for flow in reversed(self.flows):
            y = cast(Flow, flow).reverse(y)
        return F.pixel_shuffle(y, 2)


class ArtFlow(nn.Module):
    """The flow and how latents take a style: `operator` is "adain" or "wct", as the published file was trained."""

    def __init__(self, operator: str = "adain") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(3 * 4**i) for i in range(BLOCKS))
        self.operator = {"adain": adain, "wct": wct}[operator]

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], operator: str = "adain") -> "ArtFlow":
        """The `state_dict` of a published glow.pth, frozen.

        Raises: ValueError naming the tensors that do not fit, or for one that was never trained.
        """
        net = state_dicts.fill(state_dicts.build(cls, operator), tensors, "ArtFlow")
        unset = [name for name, t in tensors.items() if name.endswith("actnorm.initialized") and not t]
        if unset:
            raise ValueError(f"not ArtFlow: {len(unset)} of its flows have never seen an image ({unset[0]} is 0)")
        return net

    @classmethod
    def load_wct(cls, tensors: Mapping[str, Tensor]) -> "ArtFlow":
        """`load` for the file trained with WCT; its tensors are named and shaped as the others."""
        return cls.load(tensors, "wct")

    def latents(self, images: Tensor) -> Tensor:
        """Latents [N, 48, H / 4, W / 4] of images [N, 3, H, W] in [0, 1]; sides are multiples of 4."""
        for block in self.blocks:
            images = block(images)
        return images

    def images(self, latents: Tensor) -> Tensor:
        """The images of latents, not clamped."""
        for block in reversed(self.blocks):
            latents = cast(Block, block).reverse(latents)
        return latents

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """The content [N, 3, H, W] in the style [N, 3, h, w], all in [-1, 1]; alpha 0 gives the content back.

        Raises: ValueError for sides that are no multiples of 4.
        """
        if wrong := [side for side in (*content.shape[2:], *style.shape[2:]) if side % MULTIPLE]:
            raise ValueError(f"a side is {wrong[0]} px; expected multiples of {MULTIPLE}")
        own, theirs = self.latents(unit(content)), self.latents(unit(style))
        moved = self.operator(own, theirs)
        return symmetric(self.images(alpha * moved + (1 - alpha) * own), content)


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Latents [N, C, H, W] with the mean and std of each of the style's channels."""
    mean, std = moments(style)
    return normalised(content) * std + mean


def wct(content: Tensor, style: Tensor) -> Tensor:
    """Latents [N, C, H, W] with the mean and covariance of the style's, each image by itself."""
    pairs = zip(content.flatten(2), style.flatten(2), strict=True)
    return torch.stack([whiten_and_colour(c, s) for c, s in pairs]).view_as(content)


def whiten_and_colour(content: Tensor, style: Tensor) -> Tensor:
    """Columns [C, N] with the mean and covariance of style [C, M], in the directions in which both vary."""
    own, mean = content - content.mean(1, keepdim=True), style.mean(1, keepdim=True)
    return _power(style - mean, 0.5) @ (_power(own, -0.5) @ own) + mean


def _power(centred: Tensor, power: float) -> Tensor:
    """A power of the covariance, of its singular values that are not cut off."""
    _, values, rows = torch.linalg.svd(centred @ centred.T / (centred.shape[1] - 1))
    count = int((values >= CUT).sum()) or len(values)
    rows = rows[:count]
    return rows.T * values[:count] ** power @ rows
