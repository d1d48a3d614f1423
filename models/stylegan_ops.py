"""StyleGAN2's building operations in plain torch: FIR resampling, scaled leaky ReLU, equalised layers.

Upsampling is a depthwise transposed convolution. It multiplies no inserted zeros, compiles nothing, and has second
derivatives, which R1 and path length need.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT = 512  # components of z and of each w
GAIN = math.sqrt(2.0)
SLOPE = 0.2

Pair = int | tuple[int, int]


def fir(taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0), gain: float = 1.0) -> Tensor:
    """The 2-D low-pass kernel [K, K] of `taps`, whose sum is `gain`."""
    line = torch.tensor(taps)
    return line[:, None] * line / line.sum() ** 2 * gain


def upfirdn(x: Tensor, kernel: Tensor, up: Pair = 1, down: Pair = 1, pad: tuple[int, ...] = (0, 0)) -> Tensor:
    """Insert up - 1 zeros after each sample, pad, convolve each channel with `kernel` [Kh, Kw], keep every down-th.

    x [N, C, H, W]; `up` and `down` are one number or (vertical, horizontal); `pad` is (before, after) for both axes or
    (top, bottom, left, right), negative crops. This is a true convolution: the kernel is flipped. It is constant, and
    gets no gradient.
    Raises: ValueError when nothing is left, or `pad` has neither 2 nor 4 numbers.
    """
    if len(pad) not in (2, 4):
        raise ValueError(f"pad is {pad}; expected (before, after) or (top, bottom, left, right)")
    ups, downs = _pair(up), _pair(down)
    pads = (pad[:2], pad[-2:])
    channels, taps = x.shape[1], tuple(kernel.shape)
    sizes = [n * u + p[0] + p[1] - k + 1 for n, u, p, k in zip(x.shape[-2:], ups, pads, taps, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"nothing is left of {list(x.shape)} after up {ups}, pad {pads} and a kernel of {taps}")
    weight = kernel.to(x.dtype)[None, None].expand(channels, 1, *taps)
    if ups == (1, 1):
        if any(any(p) for p in pads):
            x = F.pad(x, (*pads[1], *pads[0]))
        return _Filter.apply(x, weight.flip(2, 3), downs)
    # The transposed convolution gives every position where the kernel touches a sample: crop or pad the border.
    full = tuple((n - 1) * u + k for n, u, k in zip(x.shape[-2:], ups, taps, strict=True))
    x = _Spread.apply(x, weight, ups, full)
    edges: list[int] = []
    for axis in (1, 0):
        before = pads[axis][0] - taps[axis] + 1
        edges += [before, sizes[axis] - x.shape[2 + axis] - before]
    x = (
        F.pad(x, edges)
        if max(edges) > 0
        else x[..., -edges[2] : x.shape[2] + edges[3], -edges[0] : x.shape[3] + edges[1]]
    )
    return x[..., :: downs[0], :: downs[1]] if downs != (1, 1) else x


class _Filter(torch.autograd.Function):
    """Each channel of x convolved with the one constant kernel that `weight` [C, 1, Kh, Kw] repeats.

    It is linear in x and `_Spread` is its transpose, so each is the other's derivative, of every order. PyTorch's own
    second derivative of a depthwise convolution works channel by channel: 170,000 operations in a step with R1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.weight, ctx.stride, ctx.size = weight, stride, tuple(x.shape[-2:])
        return F.conv2d(x, weight, stride=stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Spread.apply(grad, ctx.weight.to(grad.dtype), ctx.stride, ctx.size), None, None


class _Spread(torch.autograd.Function):
    """The transpose of `_Filter`: x [N, C, h, w] -> [N, C, *size]; what no sample reaches is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], size: tuple[int, int]) -> Tensor:
        ctx.weight, ctx.stride = weight, stride
        beyond = [n - (m - 1) * s - k for n, m, s, k in zip(size, x.shape[-2:], stride, weight.shape[-2:], strict=True)]
        return F.conv_transpose2d(x, weight, stride=stride, output_padding=beyond, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Filter.apply(grad, ctx.weight.to(grad.dtype), ctx.stride), None, None, None


def leaky(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """leaky_relu(x + bias) * sqrt 2; the bias [C] goes with axis 1 of x [N, C, ...]."""
    if bias is not None:
        x = x + bias.view(1, -1, *[1] * (x.ndim - 2))
    return F.leaky_relu(x, SLOPE) * GAIN


class EqualConv(nn.Module):
    """A convolution with equalised learning rate: its weight is stored at unit variance and scaled when used."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.stride, self.padding = 1 / math.sqrt(inputs * kernel**2), stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [N, C, H, W]."""
        return F.conv2d(x, self.weight * self.scale, None, self.stride, self.padding)


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate and, if `active`, the scaled leaky ReLU.

    `rate` multiplies the learning rate of weight and bias, which are stored larger by 1 / `rate`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, active: bool = False, bias: float = 0.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., inputs] to [..., outputs]."""
        x = F.linear(x, self.weight * self.scale, self.bias * self.rate)
        return leaky(x) if self.active else x


class Bias(nn.Module):
    """Adds a bias per channel, then applies the leaky ReLU times sqrt 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Activate x [N, C, H, W]."""
        return leaky(x, self.bias)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
