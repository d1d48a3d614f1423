"""What a portrait's latent is optimised by: LPIPS-vgg of the face, enlarged, and of the whole image, and pixels.

LPIPS of the whole image alone loses the person, since a face is a quarter of it. The face has a share of its own:
it is seen at 84 x 96 px, beside the whole image at 96 px. No part of this is a measure that inversions are
judged by (LPIPS-alex, an identity network).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.metrics.lpips import EPSILON, LPIPS

FACE = (slice(72, 216), slice(64, 192))  # rows and columns of an aligned face at 256 px: brows to chin, both cheeks
SEEN, SEEN_WHOLE = (96, 84), (96, 96)  # px at which the face and the whole image are compared
WHOLE = 1.4  # weight of the whole image
ALL = torch.ones(())  # weight of every pixel
TAPS = 4  # of LPIPS-vgg's five: the deepest costs a tenth and changes nothing


@dataclass(frozen=True)
class Target:
    """A image [1, 3, 256, 256] and the features of its views."""

    picture: Tensor
    features: list[list[Tensor]]


class FaceLoss:
    """Distance of a image to a target, both aligned portraits [1, 3, 256, 256] in [-1, 1].

    `lpips` is LPIPS-vgg; features are computed in `dtype` and in channels-last order.
    """

    def __init__(self, lpips: LPIPS, dtype: torch.dtype = torch.float32) -> None:
        trunk, self.dtype = lpips.trunk, dtype
        self.shift, self.scale = trunk.shift, trunk.scale
        used = [i for i, conv in enumerate(trunk.layout) if conv.tap][TAPS - 1] + 1
        held = trunk.state_dict()
        self.convs = [
            (
                held[f"convs.{i}.weight"].to(dtype).contiguous(memory_format=torch.channels_last),
                held[f"convs.{i}.bias"].to(dtype),
                trunk.layout[i],
            )
            for i in range(used)
        ]
        self.lins = [lpips.get_buffer(f"lin_{i}") for i in range(TAPS)]

    def target(self, x: Tensor) -> Target:
        """What a image is compared with."""
        with torch.no_grad():
            return Target(x, [self._features(view) for view in self._views(x)])

    def __call__(self, y: Tensor, target: Target) -> Tensor:
        """The loss of y, a scalar."""
        total = F.mse_loss(y, target.picture) + F.mse_loss(y[:, :, *FACE], target.picture[:, :, *FACE])
        for weight, view, wanted in zip((1.0, WHOLE), self._views(y), target.features, strict=True):
            for ours, theirs, lin in zip(self._features(view), wanted, self.lins, strict=True):
                gaps = F.conv2d((ours - theirs).square(), lin.to(self.dtype))
                total = total + weight * gaps.mean(dtype=torch.float32)
        return total

    def probe(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """A random combination of all that the loss squares and sums, each with the weight it has there.

        The loss is |r(y) - r(x)|^2; this is e . r(y) with random signs e, so gradients g of it give E[g g^T] = J^T J.
        """
        parts: list[tuple[Tensor, Tensor]] = [(ALL, y), (ALL, y[:, :, *FACE])]
        for share, view in zip((1.0, WHOLE), self._views(y), strict=True):
            parts += [(share * lin, seen) for lin, seen in zip(self.lins, self._features(view), strict=True)]
        total = torch.zeros((), device=y.device)
        for weight, seen in parts:
            cells = seen.numel() if weight is ALL else seen.shape[2] * seen.shape[3]
            signs = torch.randint(0, 2, seen.shape, generator=rng, dtype=torch.int8).to(y.device) * 2.0 - 1
            total = total + (seen.float() * signs * (weight.to(y.device) / cells).sqrt()).sum()
        return total

    @staticmethod
    def _views(x: Tensor) -> list[Tensor]:
        face = F.interpolate(x[:, :, *FACE], SEEN, mode="bilinear")
        return [face, F.interpolate(x, SEEN_WHOLE, mode="area")]

    def _features(self, x: Tensor) -> list[Tensor]:
        """LPIPS's unit-length features of a view, up to its tap TAPS."""
        x, found = ((x - self.shift) / self.scale).to(self.dtype), []
        x = x.contiguous(memory_format=torch.channels_last)
        for weight, bias, spec in self.convs:
            if spec.pool:
                x = F.max_pool2d(x, spec.pool, 2)
            x = F.relu(F.conv2d(x, weight, bias, padding=spec.padding))
            if spec.tap:
                length = x.square().sum(1, keepdim=True, dtype=torch.float32).sqrt() + EPSILON
                found.append(x / length.to(self.dtype))
        return found
