"""Hybrid inversion (Zhu et al. 2020): from an encoder's latent down by L-BFGS in the loss's own metric.

A step of the same length in W+ changes a face beyond recognition in one direction and invisibly in another. `Metric`
holds the average of J^T J over many faces, J the derivative of all that the loss compares by the latent (the
matrix of Gauss and Newton), and optimisation takes place in coordinates in which that average is the identity.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PULL = 5e-4  # towards the encoder's latent, a mean square in units of deviation
FLOOR = 0.002  # of the largest eigenvalue: below it directions count alike
FIRST = 0.4  # length of the first step; 0.5 would be Newton's if the average were this face's
LONGER = 1.3  # times the later steps: what L-BFGS has not seen yet it takes for steeper than it is
MEMORY = 20
WORSE = 1.05  # a loss so many times the best so far sends the optimisation back

Slope = Callable[[Tensor], tuple[float, Tensor]]


class Metric(nn.Module):
    """Eigenvalues [R], descending, and eigenvectors [R, L * 512] of the average metric, in units of W's deviation."""

    values: Tensor
    vectors: Tensor

    def __init__(self, values: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)

    @classmethod
    def solve(cls, probes: Tensor, rank: int) -> "Metric":
        """The `rank` main directions of probe gradients [M, L * 512], by their M x M products."""
        gram = (probes @ probes.T).double() / len(probes)
        values, left = torch.linalg.eigh(gram)
        values, left = values.flip(0)[:rank].float(), left.flip(1)[:, :rank].float()
        return cls(values, F.normalize(left.T @ probes, dim=1))

    def shift(self, u: Tensor) -> Tensor:
        """Coordinates [L * 512] to a shift [L, 512] in units of deviation: (average + floor)^-1/2 u."""
        floor = FLOOR * self.values[0]
        stretch = (self.values + floor).rsqrt() - floor.rsqrt()
        return (floor.rsqrt() * u + (self.vectors @ u * stretch) @ self.vectors).view(-1, 512)


def optimise(latent: Tensor, deviation: Tensor, metric: Metric, loss: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """The latent [1, S, 512] after `steps` gradients of `loss`, of one image, so that no batch counts.

    The metric's L num_ws move, the others (which the 256 px cut does not read) stay. Deterministic.
    """
    used = metric.vectors.shape[1] // 512

    def moved(u: Tensor) -> Tensor:
        return latent + F.pad(metric.shift(u) * deviation, (0, 0, 0, latent.shape[1] - used))

    def slope(u: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = loss(moved(u)) + PULL * metric.shift(u).square().mean()
            (gradient,) = torch.autograd.grad(value, u)
        return float(value.detach()), gradient

    with torch.no_grad():
        return moved(minimise(slope, torch.zeros_like(metric.vectors[0]), steps))


def minimise(slope: Slope, u: Tensor, steps: int) -> Tensor:
    """L-BFGS (Nocedal 1980) without line search, from u [P]: `slope`, asked `steps` times, gives value and gradient.

    Steps are LONGER than it says. Where the value has become WORSE than the best, the step is taken again at a quarter
    of its length.
    """
    best: tuple[float, Tensor, Tensor] | None = None
    pairs: list[tuple[Tensor, Tensor]] = []
    for _ in range(steps):
        value, gradient = slope(u)
        if best is not None and not value <= WORSE * best[0]:
            u = best[1] + (u - best[1]) / 4
            continue
        if best is not None and float((u - best[1]) @ (gradient - best[2])) > 0:
            pairs = [*pairs, (u - best[1], gradient - best[2])][-MEMORY:]
        best = value, u, gradient
        u = u - (LONGER if pairs else 1) * _direction(gradient, pairs)
    return u


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian that the pairs of steps and gradient changes suggest, times the gradient."""
    q, factors = gradient, []
    for s, y in reversed(pairs):
        factors.append((s @ q) / (s @ y))
        q = q - factors[-1] * y
    q = q * ((pairs[-1][0] @ pairs[-1][1]) / pairs[-1][1].square().sum() if pairs else FIRST)
    for (s, y), factor in zip(pairs, reversed(factors), strict=True):
        q = q + s * (factor - (y @ q) / (s @ y))
    return q
