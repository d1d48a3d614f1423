"""MobileStyleGAN's 256 px cut for one latent at a time, with gradients to the latent alone: for inversion.

The same numbers as `MobileStyleGAN.forward`, 1.7 times as fast to differentiate on a CPU, because features are rows
[pixels, channels] from the first octave on: a pointwise convolution is one matrix product, modulation is folded into
its kernel, and nothing is computed for the frozen weights. With bfloat16 the rows are that; factors stay in 32 bits.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.generators.mobilestylegan import SLOPE, MobileStyleGAN, Modulation, SeparableConv, ToImage, w_layer_of


def narrow_type(device: str | torch.device) -> torch.dtype:
    """bfloat16 on CPUs that multiply in it, which halves the time of a step there; float32 elsewhere.

    Without the instructions it would be slower than float32.
    """
    fits = torch.device(device).type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fits else torch.float32


def _image(rows: Tensor) -> Tensor:
    """Rows [side * side, C] seen as a image [1, C, side, side] in channels-last order."""
    side = round(rows.shape[0] ** 0.5)
    return rows.view(1, side, side, -1).permute(0, 3, 1, 2)


def _rows(image: Tensor) -> Tensor:
    """The rows of a image [1, C, S, S]."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _wavelet_order(channels: int, device: torch.device) -> Tensor:
    """Order in which low-pass, rows, columns and both lie in blocks, not interleaved as the published kernels have."""
    c = torch.arange(channels // 4, device=device)
    return torch.cat([c, *(len(c) + c * 3 + i for i in range(3))])


@dataclass(frozen=True)
class _Conv:
    """A separable convolution's constants; `kernel` [out, in] is 32 bits wide, the others are of the rows' type.

    `order` is that of its outputs where it is not the published one.
    """

    modulation: Modulation
    slot: int
    depthwise: Tensor
    kernel: Tensor
    bias: Tensor
    noise: Tensor | None
    order: Tensor | None


class _Separable(torch.autograd.Function):
    """Depthwise 3x3, modulated pointwise, bias, noise and LeakyReLU of rows; gradients to rows and factors."""

    @staticmethod
    def forward(ctx, rows: Tensor, factors: Tensor, conv: _Conv) -> Tensor:  # type: ignore[no-untyped-def]
        seen = _rows(F.conv2d(_image(rows), conv.depthwise, padding=1, groups=rows.shape[1]))
        out = torch.addmm(conv.bias, seen, (conv.kernel * factors).to(rows.dtype).T)
        if conv.noise is not None:
            out.add_(conv.noise)
        F.leaky_relu_(out, SLOPE)
        ctx.save_for_backward(seen, out, factors)
        ctx.conv = conv
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        seen, out, factors = ctx.saved_tensors
        back = torch.ops.aten.leaky_relu_backward(grad, out, SLOPE, True) @ ctx.conv.kernel.to(grad.dtype)
        turned = (ctx.conv.depthwise.flip(2, 3) * factors.view(-1, 1, 1, 1)).to(grad.dtype)
        into = F.conv2d(
            _image(back), turned.contiguous(memory_format=torch.channels_last), padding=1, groups=back.shape[1]
        )
        return _rows(into), (back * seen).sum(0).float(), None


class _Up(torch.autograd.Function):
    """Inverse Haar of rows times factors (which carry its 1/2): [P, 4C] -> [4P, C], channels in `_wavelet_order`."""

    @staticmethod
    def forward(ctx, rows: Tensor, factors: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(rows, factors)  # rows are what a factor's gradient needs
        side, c = round(rows.shape[0] ** 0.5), rows.shape[1] // 4
        low, across, down, both = (rows * factors.to(rows.dtype)).view(side, side, -1).split(c, 2)
        a, b, p, q = low + across, low - across, down + both, down - both
        out = torch.empty(side, 2, side, 2, c, dtype=rows.dtype, device=rows.device)
        for at, (one, other) in {(0, 0): (a, p), (1, 0): (b, q)}.items():
            torch.add(one, other, out=out[:, at[0], :, 0])
            torch.sub(one, other, out=out[:, at[0], :, 1])
        return out.view(-1, c)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[no-untyped-def]
        rows, factors = ctx.saved_tensors
        side, c = round(rows.shape[0] ** 0.5), grad.shape[1]
        quads = grad.view(side, 2, side, 2, c)
        tl, tr, bl, br = quads[:, 0, :, 0], quads[:, 0, :, 1], quads[:, 1, :, 0], quads[:, 1, :, 1]
        top, bottom, over, under = tl + tr, bl + br, tl - tr, bl - br
        into = torch.cat([top + bottom, top - bottom, over + under, over - under], 2).view(-1, 4 * c)
        moved = (into * rows).sum(0).float() if ctx.needs_input_grad[1] else None
        return into * factors.to(grad.dtype), moved


class LatentRenderer:
    """Renders single W+ latents [1, 18, 512] to [1, 3, 256, 256], differentiable once in the latent.

    `dtype` is that of the features. Raises: ValueError for a generator without the 256 px head.
    """

    def __init__(self, generator: MobileStyleGAN, dtype: torch.dtype = torch.float32) -> None:
        if generator.head is None:
            raise ValueError(f"the renderer needs the 256 px head, this generator gives {generator.size} px")
        self.generator, self.dtype = generator, dtype
        blocks: list[Any] = list(generator.layers)
        last = len(blocks) - 1
        self.blocks = [
            (
                block.up,
                w_layer_of(f"layers.{i}.up"),
                _wavelet_order(block.up.bias.numel(), block.up.bias.device),
                self._conv(block.conv1, f"layers.{i}.conv1"),
                self._conv(block.conv2, f"layers.{i}.conv2", ordered=i < last),
            )
            for i, block in enumerate(blocks)
        ]
        self.head = [self._conv(getattr(generator.head, part), f"head.{part}") for part in ("conv1", "conv2")]
        self.to_image: ToImage = generator.head.to_img

    def _conv(self, conv: SeparableConv, name: str, ordered: bool = False) -> _Conv:
        order = _wavelet_order(conv.pointwise.shape[0], conv.pointwise.device) if ordered else None
        noise = None if conv.noise is None else conv.noise.flatten()[:, None].to(self.dtype)
        depthwise = conv.depthwise.to(self.dtype).contiguous(memory_format=torch.channels_last)
        kernel: Tensor = conv.pointwise
        bias = conv.bias.flatten()
        if order is not None:
            kernel, bias = kernel[order], bias[order]
        return _Conv(
            conv.modulation, w_layer_of(name), depthwise, kernel.contiguous(), bias.to(self.dtype), noise, order
        )

    def __call__(self, latent: Tensor) -> Tensor:
        """The image of one latent [1, 18, 512], float32 in about [-1, 1]. Raises: ValueError for another shape."""
        if latent.ndim != 3 or latent.shape[0] != 1:
            raise ValueError(f"the renderer takes one latent [1, num_ws, 512], got {tuple(latent.shape)}")
        first = self.generator.conv1(self.generator.constant, latent[:, 0])
        rows = _rows(first)[:, _wavelet_order(first.shape[1], first.device)].to(self.dtype)
        for up, slot, order, *convs in self.blocks:
            rows = _Up.apply(rows, up(latent[:, slot]).flatten()[order] * 0.5)
            for conv in convs:
                rows = self._apply(conv, rows, latent)
        for conv in self.head:
            rows = self._apply(conv, rows, latent)
        factors = self.to_image.modulation(latent[:, w_layer_of("head.to_img")]).flatten()
        order = _wavelet_order(len(self.to_image.weight), rows.device)
        rows = torch.addmm(self.to_image.bias.flatten()[order], rows.float(), (self.to_image.weight[order] * factors).T)
        return _image(_Up.apply(rows, torch.full_like(rows[0], 0.5)))

    def _apply(self, conv: _Conv, rows: Tensor, latent: Tensor) -> Tensor:
        return _Separable.apply(rows, conv.modulation(latent[:, conv.slot]).flatten(), conv)
