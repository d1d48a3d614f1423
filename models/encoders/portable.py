"""The e4e-style encoder of the portable profile: an image to a W+ latent of 18 layers (Tov et al. 2021).

Three changes keep it small enough to train without a GPU. Its backbone is the frozen AlexNet trunk that LPIPS already
loads. The latent is refined in a few iterations that compare the image with its current inversion (ReStyle, Alaluf et
al. 2021). A linear path from pooled features, solved in closed form on generated faces, does most of the work; gradient
optimisation only learns the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.trunks import Trunk
from models.encoders.optimisation import Metric
from models.generators.mobilestylegan import NUM_WS

_ALEX = (64, 192, 384, 256, 256)  # channels of AlexNet's features; the deep ones have 15 x 15 cells at 256 px
POOLED = 3 * 16**2 + _ALEX[0] * 6**2 + sum(_ALEX[1:]) * 5**2
RANK = 192
SPANS = (4, 4, 3, 7)  # consecutive W+ layers to which the linear path gives one latent: shape, features, colour, grain


class Generator(Protocol):
    """What the encoder needs of a generator."""

    def __call__(self, latent: Tensor) -> Tensor:
        """Images [N, 3, S, S] of latents [N, 18, 512]."""


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.LeakyReLU(0.1, inplace=True)
    )


class Residual(nn.Module):
    """x + two 3x3 convolutions with group normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(width, width), nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, width, H, W]."""
        return F.leaky_relu(x + self.body(x), 0.1)


class Refiner(nn.Module):
    """The convolutional path: feature maps to one change of all W+ layers and an offset per layer (e4e's form)."""

    def __init__(self, width: int = 256, deep: int = 384) -> None:
        super().__init__()
        self.detail = nn.Conv2d(_ALEX[0] + 3, 96, 5, 4)
        self.merge = nn.Conv2d(2 * (96 + sum(_ALEX[1:])), width, 1)
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.LeakyReLU(0.1),
            Residual(width),
            Residual(width),
            _block(width, deep, 2),
            Residual(deep),
            _block(deep, deep, 2),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(nn.Linear(deep * 16, 512), nn.LeakyReLU(0.1))
        self.base = nn.Linear(512, 512)
        self.offsets = nn.Linear(512, NUM_WS * 512)
        for layer in (self.base, self.offsets):
            nn.init.normal_(layer.weight, 0, 1e-3)
            nn.init.zeros_(layer.bias)

    def feature_map(self, features: "ImageFeatures") -> Tensor:
        """Feature map [N, C, 15, 15]."""
        first, second, *deep = features.features
        small = F.interpolate(features.image, first.shape[-2:], mode="bilinear", antialias=True)
        detail = F.leaky_relu(self.detail(torch.cat([first, small], 1)), 0.1)
        return torch.cat([detail, F.max_pool2d(second, 3, 2), *deep], 1)

    def forward(self, target: "ImageFeatures", current: "ImageFeatures") -> Tensor:
        """Change of the latent, [N, 18, 512]."""
        a, b = self.feature_map(target), self.feature_map(current)
        h = self.hidden(self.body(self.merge(torch.cat([a, a - b], 1))))
        return self.base(h)[:, None] + self.offsets(h).reshape(-1, NUM_WS, 512)


@dataclass(frozen=True)
class ImageFeatures:
    """An image [N, 3, 256, 256], the trunk's features of it, and those pooled to [N, POOLED]."""

    image: Tensor
    features: Sequence[Tensor]
    pooled: Tensor


def image_features(trunk: Trunk, x: Tensor) -> ImageFeatures:
    """Features of images [N, 3, 256, 256] in [-1, 1]. Raises: ValueError for another size."""
    if x.shape[-2:] != (256, 256):
        raise ValueError(f"the encoder reads images [N, 3, 256, 256], got {list(x.shape)}")
    features = trunk(x)
    return ImageFeatures(x, features, pool(x, features))


class PortableEncoder(nn.Module):
    """Predicts the W+ latent of aligned images.

    `mean` [512] and `deviation` [512] are the mean and std of the generator's mapped latents; outputs are in units of
    the std. Without `refine` there is only the linear path, and W+ layers share latents as SPANS say. `metric` is that
    of W+ for the optimisation that may follow (`models/encoders/optimisation.py`).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        *,
        refine: bool = False,
        metric: Metric | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(512) if mean is None else mean.clone())
        self.register_buffer("deviation", torch.ones(512) if deviation is None else deviation.clone())
        rank = RANK if rank is None else rank
        self.squeeze = nn.Linear(POOLED, rank, bias=False)
        self.expand = nn.Linear(rank, len(SPANS) * 512, bias=False)
        self.refiner = Refiner() if refine else None
        self.metric = metric
        nn.init.zeros_(self.expand.weight)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "PortableEncoder":
        """Build from saved tensors, frozen; those with one latent for all W+ layers, or without a metric, too."""
        own = {name: t.float() for name, t in tensors.items()}
        if own["expand.weight"].shape[0] == 512:
            own["expand.weight"] = own["expand.weight"].repeat(len(SPANS), 1)
        metric = Metric(own["metric.values"], own["metric.vectors"]) if "metric.values" in own else None
        net = cls(
            refine=any(name.startswith("refiner.") for name in own), metric=metric, rank=own["squeeze.weight"].shape[0]
        )
        net.load_state_dict(own)
        return net.requires_grad_(False).eval()

    def step(self, target: ImageFeatures, current: ImageFeatures, latent: Tensor) -> Tensor:
        """Refine `latent` [N, 18, 512] by comparing the image with its current inversion."""
        change = self.expand(self.squeeze(target.pooled - current.pooled)).unflatten(1, (len(SPANS), 512))
        change = change.repeat_interleave(torch.tensor(SPANS, device=change.device), 1)
        if self.refiner is not None:
            change = change + self.refiner(target, current)
        return latent + change * self.deviation

    def forward(
        self, x: Tensor, trunk: Trunk, generator: Generator, passes: int = 2, start: Tensor | None = None
    ) -> Tensor:
        """Invert x [N, 3, 256, 256] in [-1, 1] to latents [N, 18, 512], from the mean face in `passes` iterations."""
        return self.passes(x, trunk, generator, passes, start)[-1]

    def passes(
        self, x: Tensor, trunk: Trunk, generator: Generator, count: int, start: Tensor | None = None
    ) -> list[Tensor]:
        """The latent after each of `count` iterations; each starts from the one before, detached.

        `start` is the mean face [1, 3, 256, 256], to be given if the caller has it already.
        """
        target, latents = image_features(trunk, x), []
        latent = self.mean.expand(x.shape[0], NUM_WS, -1)
        for i in range(count):
            latent = latent.detach()
            with torch.no_grad():
                current = start if i == 0 and start is not None else generator(latent).clamp(-1, 1)
            latent = self.step(target, image_features(trunk, current), latent)
            latents.append(latent)
        return latents


def pool(x: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Colours at 16 x 16 and the trunk's features at 6 x 6 (first) and 5 x 5 cells, as one vector: [N, POOLED]."""
    sizes = (16, 6, 5, 5, 5, 5)
    return torch.cat([F.adaptive_avg_pool2d(f, n).flatten(1) for f, n in zip((x, *features), sizes, strict=True)], 1)


def solve_linear(pooled: Tensor, latents: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Ridge regression in its dual form, cut to rank RANK: (squeeze [RANK, POOLED], expand [D, RANK]).

    pooled [M, POOLED], latents [M, D] in units of their std; `ridge` is relative to the mean kernel value.
    """
    x = pooled - pooled.mean(0)
    scale = 1 / (x.std(0) + 1e-2 * x.std())
    x = x * scale
    y = latents - latents.mean(0)
    kernel = (x @ x.T).double()
    kernel += ridge * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=torch.float64, device=kernel.device)
    solution = x.T @ torch.linalg.solve(kernel, y.double()).float()
    u, s, v = torch.svd_lowrank(solution, q=RANK, niter=4)
    root = s.sqrt()
    return (u * root).T * scale, v * root
