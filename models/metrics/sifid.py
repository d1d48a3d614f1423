"""Single Image Frechet Inception Distance (Shaham et al. 2019): the paper's style measure.

Every position of an early Inception map is a sample, so one image gives a mean and a covariance. Keep
them: a grid of 100 x 100 pairs has 10,000 results but only 100 styles.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean [C] and unbiased covariance [C, C] of one image's features, float64."""

    mean: Tensor
    covariance: Tensor


def gaussian(features: Tensor) -> Gaussian:
    """Mean and covariance of one image's features [C, H, W]. Raises: ValueError when there is only one position."""
    rows = features.flatten(1).double()
    if rows.shape[1] < 2:
        raise ValueError(f"a covariance needs at least 2 positions, got a feature map {list(features.shape)}")
    return Gaussian(rows.mean(1), torch.cov(rows))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians.

    The trace of sqrt(A B) is the sum of singular values of sqrt(A) sqrt(B): real and accurate even when both
    covariances are rank-deficient, which early feature maps of flat images make them.
    """
    root = _root(a.covariance) @ _root(b.covariance)
    cross = torch.linalg.svdvals(root).sum()
    gap = (a.mean - b.mean).square().sum()
    return float((gap + a.covariance.trace() + b.covariance.trace() - 2 * cross).clamp_min(0))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # An eigenvalue below this is rounding error, whose root would be far larger than itself.
    floor = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return (vectors * torch.where(values > floor, values, 0).sqrt()) @ vectors.T
