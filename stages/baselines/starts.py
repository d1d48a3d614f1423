"""Where attention starts beside a decoder that can read features: as a style swap, which training polishes.

A style swap (Chen and Schmidt 2016) gives each position the style's features that are most alike there.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.baselines.pama import INNER, Alignment
from models.baselines.sanet import Transformer

SHARPNESS = 0.35  # of PAMA's attention: what its queries and keys are multiplied by
SHRUNK = 0.5  # PAMA's features inside an alignment, so that few reach ReLU6's limit
CENTRE, KEPT = 3.0, 1.0  # of ReLU6's range; and the logit of the content's share, 0.73, in each alignment
LEAST = 0.1  # standard deviation that a principal component is taken to have


@torch.no_grad()
def swap(transformer: Transformer) -> None:
    """Let it give, at each position, the mean of relu4_1 and of the style's relu4_1 that is most alike.

    At relu5_1 it starts with the difference of both, so that an image in itself is only decoded.
    """
    for attention, sign in ((transformer.sanet4_1, 1.0), (transformer.sanet5_1, -1.0)):
        for conv in (attention.f, attention.g, attention.h, attention.out_conv):
            _scaled_identity(conv, sign if conv is attention.out_conv else 1.0)
    _scaled_identity(transformer.merge_conv, 0.5)


@torch.no_grad()
def align(alignments: Iterable[Alignment], features: Tensor) -> None:
    """Let each mix content features with the style's that are most alike, about three parts to one.

    The attention has room for half of the channels: it gets the principal components of relu4_1 `features`
    [N, 512, h, w] of any images.
    """
    mean, deviations, axes = _principal(features, INNER)
    inwards, outwards = axes / deviations[:, None], (axes * deviations[:, None]).T
    for alignment in alignments:
        attn, fuse = alignment.attn, alignment.fuse
        _scaled_identity(alignment.conv_in, SHRUNK)
        _scaled_identity(alignment.conv_out, 1.0)
        for conv in (attn.f, attn.g):
            _linear(conv, SHARPNESS * axes, torch.zeros(INNER))
        _linear(attn.h, inwards / SHRUNK, CENTRE - inwards @ mean)
        _linear(attn.out_conv, SHRUNK * outwards, SHRUNK * (mean - CENTRE * outwards.sum(1)))
        for conv in (fuse.proj2, fuse.proj3):
            _scaled_identity(conv, 1 / SHRUNK)
        for conv in (fuse.fuse1x, fuse.fuse3x, fuse.fuse5x):
            nn.init.constant_(conv.bias, KEPT)  # type: ignore[arg-type]


def _principal(features: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], deviations [count] and axes [count, C] of features [N, C, h, w], the largest first."""
    rows = features.transpose(0, 1).flatten(1).double()
    mean = rows.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh((rows - mean) @ (rows - mean).T / rows.shape[1])
    axes = vectors.T.flip(0)[:count]
    axes = axes * axes.sum(1, keepdim=True).sign()  # an axis may be found in either direction
    deviations = values.flip(0)[:count].clamp(min=0).sqrt().clamp(min=LEAST)
    return mean[:, 0].float(), deviations.float(), axes.float()


def _linear(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Set a 1x1 convolution."""
    conv.weight.copy_(weight[..., None, None])
    conv.bias.copy_(bias)  # type: ignore[union-attr]


def _scaled_identity(conv: nn.Conv2d, scale: float) -> None:
    nn.init.dirac_(conv.weight)
    conv.weight.mul_(scale)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
