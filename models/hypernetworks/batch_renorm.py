"""Batch renormalisation (Ioffe 2017): one function in training and in use, whatever the batch."""

from typing import Any

import torch
from torch import Tensor, nn

CHANNEL = (0, 2, 3)  # the axes of [N, C, H, W] that a channel's statistics are taken over


class BatchRenorm(nn.BatchNorm2d):
    """Normalises by the running statistics; the gradient is that of batch norm by the batch's own.

    So the layers before it cannot learn to shift or scale whole channels. With constant statistics they would: Adam
    moves all weights alike, which multiplies a new ResNet34's features by 30 within 20 steps. A training calls `follow`
    after its optimiser's step. In training mode this is plain batch norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self._seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [N, C, H, W]."""
        if not self.training and x.requires_grad:
            x = _OwnStatistics.apply(x, self.eps, self._seen)
        return super().forward(x)

    def seen(self) -> Tensor | None:
        """The mean and mean square of each channel, [2, C], over what was learnt from since the last call, or None."""
        found = torch.stack(self._seen).mean(0) if self._seen else None
        self._seen.clear()
        return found

    @torch.no_grad()
    def follow(self, seen: Tensor, share: float = 0.1) -> None:
        """Move the running statistics towards those that `seen` gives."""
        mean, square = seen
        self.running_mean.lerp_(mean, share)  # type: ignore[union-attr]
        self.running_var.lerp_((square - mean.square()).clamp_min(0), share)  # type: ignore[union-attr]


class _OwnStatistics(torch.autograd.Function):
    """The identity; its gradient is freed of what shifts or scales a channel of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, seen: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.eps, ctx.seen = eps, seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        narrow = torch.bfloat16, torch.float16
        x, wide = (t.float() if t.dtype in narrow else t for t in (*ctx.saved_tensors, gradient))
        var, mean = torch.var_mean(x, CHANNEL, correction=0, keepdim=True)
        ctx.seen.append(torch.stack([mean.flatten(), (var + mean.square()).flatten()]))
        normal = (x - mean) * (var + ctx.eps).rsqrt()
        shift, scale = wide.mean(CHANNEL, keepdim=True), (wide * normal).mean(CHANNEL, keepdim=True)
        return (wide - shift - normal * scale).to(gradient.dtype), None, None
