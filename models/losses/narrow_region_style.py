"""The region style loss, cheaper to differentiate: VGG16 in channels-last order, moments with a gradient by hand.

In float32 the same numbers as `RegionStyleLoss`; in bfloat16, half the time, a gradient of cosine 0.98 or more to that.
The costliest activations, those of the second convolution at full size, may be seen at a quarter of the places: moments
are means over places, and the mean of the four quarters' is that of all.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.backbones.trunks import Trunk
from models.losses.region_style import FINE, RegionStyleLoss, group_masks, taps

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))  # the first row and column of each quarter: every second place both ways
FACE = (96, 212), (68, 188)  # rows and columns of an aligned face at 256 px: brows to lower lip
FACE_CONTENT = 3  # the convolution of the face's content features, at the image's own size
FRAME = 3  # places of these along each side, which see the padding: they would draw a line along the face's edge
Phase = tuple[int, int]


class _Moments(torch.autograd.Function):
    """Mean and variance [G, C] of rows [P, C] under weights [G, P]; no square is kept for the backward pass.

    The last group is the whole image.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        mean = (weights @ rows).to(torch.promote_types(rows.dtype, torch.float32))
        centre = mean[-1].to(rows.dtype)  # near enough to every group's mean that no digits are lost
        squares = weights @ (rows - centre).square_()
        variance = squares.to(mean.dtype) - (mean - centre).square()
        ctx.save_for_backward(rows, weights, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        rows, weights, mean = ctx.saved_tensors
        into = (weights.T @ (2 * of_variance).to(rows.dtype)).mul_(rows)
        return into.addmm_(weights.T, (of_mean - 2 * of_variance * mean).to(rows.dtype)), None


class NarrowRegionStyleLoss(RegionStyleLoss):
    """`RegionStyleLoss` of one image [1, 3, 256, 256] at a time, its activations in `dtype`."""

    def __init__(self, trunk: Trunk, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(trunk.to(memory_format=torch.channels_last))
        self.dtype = dtype
        self._of: Tensor | None = None  # the region map that `_weights` are of
        self._weights: dict[tuple[tuple[int, int], Phase | None], Tensor] = {}

    def features(self, x: Tensor, phase: Phase | None = None) -> tuple[list[Tensor], Tensor]:
        """The compared activations, and the content features [1, 256, 32, 32] in float32, instance-normalised.

        With a phase the second activation is that of its quarter of the places, [1, 64, 128, 128]; `statistics` has to
        be told.
        """
        with self._autocast(x):
            x = x.contiguous(memory_format=torch.channels_last)
            found, shape = super().features(x) if phase is None else self.beside(self._fine(x, phase), x)
        return found, shape.to(x.dtype)

    def _fine(self, x: Tensor, phase: Phase) -> list[Tensor]:
        first, conv, (down, right) = next(self.trunk.layers(x)), self.trunk.convs[FINE[1]], phase
        assert isinstance(conv, nn.Conv2d)
        around = F.pad(first, (1 - right, right, 1 - down, down))
        return [first, F.relu_(F.conv2d(around, conv.weight, conv.bias, stride=2))]

    def content_features(self, x: Tensor) -> Tensor:
        """The content features of `features` alone."""
        with self._autocast(x):
            return super().content_features(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    def face_features(self, x: Tensor) -> Tensor:
        """Content features of eyes, nose and mouth [1, 128, 52, 54] in float32, instance-normalised.

        To the content features of the whole image an eye is three places wide, and may become anything alike.
        """
        with self._autocast(x):
            rows, columns = (slice(*(at * x.shape[-1] // 256 for at in ends)) for ends in FACE)
            face = x[..., rows, columns].contiguous(memory_format=torch.channels_last)
            found, frame = taps(self.trunk, face, (FACE_CONTENT,))[FACE_CONTENT], FRAME * x.shape[-1] // 256
            return F.instance_norm(F.pad(found, (-frame,) * 4)).to(x.dtype)

    def _autocast(self, x: Tensor) -> AbstractContextManager:
        return torch.autocast(x.device.type, torch.bfloat16) if self.dtype is torch.bfloat16 else nullcontext()

    def statistics(
        self, features: list[Tensor], region: Tensor, phase: Phase | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Mean and deviation [1, 4, C] of each feature inside hair, face, background, and the whole image."""
        found = []
        for i, f in enumerate(features):
            rows = f.permute(0, 2, 3, 1).reshape(-1, f.shape[1])
            weights = self._shares(region, (f.shape[-2], f.shape[-1]), phase if i == FINE[1] else None)
            mean, variance = _Moments.apply(rows, weights.to(rows.dtype))
            found.append((mean[None], variance.clamp(min=1e-6).sqrt()[None]))
        return found

    def parted(
        self, statistics: list[tuple[Tensor, Tensor]], targets: list[tuple[Tensor, Tensor]], present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two summands of `style`: of what is always seen whole, and of what a phase sees a quarter of.

        Quarters differ by up to 5 % of the loss, so that only the first tells which of two steps is better.
        """
        at, count = FINE[1], len(targets)
        whole = self.style([*statistics[:at], *statistics[at + 1 :]], [*targets[:at], *targets[at + 1 :]], present)
        quarter = self.style(statistics[at : at + 1], targets[at : at + 1], present)
        return whole * (count - 1) / count, quarter / count

    def _shares(self, region: Tensor, size: tuple[int, int], phase: Phase | None) -> Tensor:
        """What each place of a size counts in each group [G, P]; kept for the same map, which refinement asks again."""
        if self._of is not region:
            self._of, self._weights = region, {}
        key = size, phase
        if key not in self._weights:
            down, right, step = (*phase, 2) if phase else (0, 0, 1)
            shares = F.adaptive_avg_pool2d(group_masks(region), (step * size[0], step * size[1]))
            weights = shares[..., down::step, right::step].flatten(2)[0]
            self._weights[key] = weights / weights.sum(1, keepdim=True).clamp(min=1e-3)
        return self._weights[key]
