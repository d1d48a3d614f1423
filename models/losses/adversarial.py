"""Adversarial losses of the stylisation phase, and the R1 penalty."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's nonsaturating logistic loss over logits of any shape."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The generator's nonsaturating logistic loss, -log D (Eqs. 4 and 5)."""
    return F.softplus(-fake).mean()


def r1(scores: Tensor, inputs: Sequence[Tensor], gamma: float, *, every: int = 1) -> Tensor:
    """R1 penalty: gamma / 2 * |d scores / d inputs|^2, mean over the first axis; times `every` for lazy regularisation.

    The inputs must require gradients. Published settings: image discriminator gamma 10 on the real images, patch
    discriminator gamma 0.5 on reference and real patches together, both every 16 steps.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    penalty = torch.stack([g.square().flatten(1).sum(1).mean() for g in gradients]).sum()
    return 0.5 * gamma * every * penalty
