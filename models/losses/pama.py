"""PAMA's losses (Luo et al. 2022): how the features and the colours of its three stages compare with both images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses.feature_statistics import Seen, Terms

STAGES = ((12.0, 0.25), (9.0, 0.5), (7.0, 1.0))  # weights of content and of colour; style's are 2 in each
STYLE = 2.0
BINS, REACH, WIDTH, SIDE = 256, 3.0, 0.02, 64  # of the histogram: its range is -REACH to REACH
EPSILON = 1e-6


def cosine_distances(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine [B, N, M] between the positions of a [B, C, ...] and of b [B, C, ...], N and M of them."""
    left, right = (x.flatten(2) / x.flatten(2).norm(dim=1, keepdim=True) for x in (a, b))
    return 1 - left.transpose(1, 2) @ right


def self_similarity(a: Tensor, b: Tensor) -> Tensor:
    """How the distances within a [B, C, h, w] differ from those within b of the same shape."""
    return (cosine_distances(a, a) - cosine_distances(b, b)).abs().mean()


def remd(a: Tensor, b: Tensor) -> Tensor:
    """The relaxed earth mover's distance between the positions of a and b [B, C, ...], over the whole batch."""
    distances = cosine_distances(a, b)
    return torch.maximum(distances.amin(1).mean(), distances.amin(2).mean())


def moment(a: Tensor, b: Tensor) -> Tensor:
    """The difference of mean and covariance of a and b [B, C, h, w]; means are over channels, as published."""
    (mean_a, cov_a), (mean_b, cov_b) = map(_statistics, (a, b))
    return (mean_a - mean_b).abs().mean() + (cov_a - cov_b).abs().mean()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.flatten(2)
    mean = x.mean(1, keepdim=True)
    return mean, (x - mean) @ (x - mean).transpose(1, 2) / (x.shape[2] - 1)


def histogram(images: Tensor) -> Tensor:
    """HistoGAN's histogram [B, 3, 256, 256] of images [B, 3, H, W] in [0, 1]: of log ratios to each channel in turn."""
    images = images.clamp(0, 1)
    if max(images.shape[2:]) > SIDE:
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels = images.flatten(2)
    brightness = (pixels.square().sum(1) + EPSILON).sqrt()
    logs = (pixels + EPSILON).log()
    bins = torch.linspace(-REACH, REACH, BINS, dtype=torch.float64, device=images.device)

    def near(value: Tensor) -> Tensor:
        return (1 / (1 + ((value.double()[..., None] - bins) / WIDTH).square())).float()

    planes = []
    for channel, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
        u, v = logs[:, channel] - logs[:, first], logs[:, channel] - logs[:, second]
        planes.append((brightness[..., None] * near(u)).transpose(1, 2) @ near(v))
    found = torch.stack(planes, 1)
    return found / (found.sum((1, 2, 3), keepdim=True) + EPSILON)


def colour(images: Tensor, target: Tensor) -> Tensor:
    """The Hellinger distance between the histogram of images and `target`, that of the style; see `histogram`."""
    return (target.sqrt() - histogram(images).sqrt()).norm() / math.sqrt(2) / len(images)


def stage_terms(out: Seen, content: Seen, style: Seen, target: Tensor) -> list[Terms]:
    """One stage's terms, unweighted: of relu3_1, relu4_1 and relu5_1, and last the colour."""
    found: list[Terms] = [
        {
            "self_similarity": self_similarity(a, b),
            "remd": remd(a, c),
            "moment": moment(a, c),
        }
        for a, b, c in zip(out.taps[2:5], content.taps[2:5], style.taps[2:5], strict=True)
    ]
    return [*found, {"colour": colour(out.image, target)}]


def stage_loss(terms: Sequence[Terms], content: float, colours: float) -> Tensor:
    """A stage's weighted mean of its terms, with its weights of STAGES."""
    *layers, last = terms
    own = torch.stack([layer["self_similarity"] for layer in layers]).sum()
    theirs = torch.stack([layer["remd"] + layer["moment"] for layer in layers]).sum()
    return (content * own + STYLE * theirs + colours * last["colour"]) / (content + 2 * STYLE + colours)


def reconstruction(pairs: Sequence[tuple[Seen, Seen]]) -> Tensor:
    """How decoded features differ from their images, content and style alike: pairs of both."""
    images = [25 * F.mse_loss(a.image, b.image) for a, b in pairs]
    features = [0.5 * F.mse_loss(x, y) for a, b in pairs for x, y in zip(a.taps[2:5], b.taps[2:5], strict=True)]
    return torch.stack([*images, *features]).sum()
