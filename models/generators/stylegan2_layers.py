"""StyleGAN2's layers: modulated convolution, noise, blur, to RGB. Kernels take weight deltas."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import recompute
from models.generators import interface
from models.generators.region_weights import RegionWeights
from models.stylegan_ops import LATENT, Bias, EqualLinear, fir, upfirdn


class ModulatedConv(nn.Module):
    """A convolution whose kernel is scaled by a style, demodulated, and may carry relative deltas (Eq. 2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, up: bool = False, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(LATENT, inputs, bias=1.0)
        self.blur = Blur(4.0) if up else None
        self.scale, self.demodulate = 1 / math.sqrt(inputs * kernel**2), demodulate

    def forward(
        self, x: Tensor, w: Tensor, delta: Tensor | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Map x [N, in, H, W] by w [N, 512]; delta [N, out, in, k, k], or broadcast to that, or [N, out, in].

        With `region_weights` the regions come after N, and each region's delta acts where it lies.
        """
        if region_weights is not None and delta is not None:
            repeated = (t.repeat_interleave(region_weights.region_count, 0) for t in (x, w))
            return region_weights.blend(self(*repeated, delta.flatten(0, 1)))
        style = self.modulation(w)
        x = x * style[:, :, None, None].to(x.dtype)
        kernel = self.weight * self.scale
        if delta is not None:
            kernel = interface.moved(kernel, delta[..., None, None] if delta.ndim == 3 else delta)
        x = self._convolve(x, kernel)
        if self.demodulate:
            with recompute.full_precision(x):
                power = torch.matmul(kernel.float().square().sum((3, 4)), style.float().square()[:, :, None])
                x = x * (power + 1e-8).rsqrt()[..., None].to(x.dtype)
        return x if self.blur is None else self.blur(x, (1, 1))

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Convolve with kernels [1 or N, out, in, k, k], one group per sample if there are several."""
        n, groups = len(x), len(kernel)
        inputs, outputs, size = kernel.shape[2], kernel.shape[1], kernel.shape[-1]
        x = x.reshape(n // groups, groups * inputs, *x.shape[2:])
        if self.blur is not None:
            turned = kernel.transpose(1, 2).reshape(groups * inputs, outputs, size, size)
            y = F.conv_transpose2d(x, turned, stride=2, groups=groups)
        else:
            y = F.conv2d(x, kernel.reshape(groups * outputs, inputs, size, size), padding=size // 2, groups=groups)
        return y.reshape(n, outputs, *y.shape[2:])


class Blur(nn.Module):
    """The FIR filter; a buffer, because files hold it."""

    kernel: Tensor

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir(gain=gain))

    def forward(self, x: Tensor, pad: tuple[int, int], up: int = 1) -> Tensor:
        """Filter x [N, C, H, W]."""
        return upfirdn(x, self.kernel, up, 1, pad)


class Noise(nn.Module):
    """Adds weighted noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add noise [1 or N, 1, H, W]."""
        return x + (self.weight * noise).to(x.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation."""

    def __init__(self, inputs: int, outputs: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, up=up)
        self.noise = Noise()
        self.activate = Bias(outputs)

    def forward(
        self, x: Tensor, w: Tensor, noise: Tensor, delta: Tensor | None, region_weights: RegionWeights | None
    ) -> Tensor:
        """Map x [N, in, H, W] by w [N, 512]."""
        return self.activate(self.noise(self.conv(x, w, delta, region_weights), noise))


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to colour, added to the upsampled image so far."""

    def __init__(self, inputs: int, *, up: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Blur(4.0) if up else None
        self.conv = ModulatedConv(inputs, 3, 1, demodulate=False)

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        delta: Tensor | None,
        region_weights: RegionWeights | None,
        below: Tensor | None = None,
    ) -> Tensor:
        """Features [N, in, H, W] and the image at half the size to the image [N, 3, H, W]."""
        y = self.conv(x, w, delta, region_weights).to(self.bias.dtype) + self.bias
        if below is None or self.upsample is None:
            return y
        with recompute.full_precision(x):  # an image that goes through eight octaves is rounded in none of them
            return y + self.upsample(below, (2, 1), up=2)


class Constant(nn.Module):
    """The learned 4x4 input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class PixelNorm(nn.Module):
    """Gives each z unit mean square."""

    def forward(self, z: Tensor) -> Tensor:
        """Normalise z [N, 512]."""
        return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
