"""Supervised contrastive loss (Khosla et al. 2020): rows of one group attract each other and repel all others."""

import torch
from torch import Tensor


def multi_positive(codes: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """The loss of unit codes [N, D] whose group numbers are `groups` [N]; all other rows of a group are positives.

    For each row it is the mean, over its positives, of -log of their probability in the softmax over all other rows.
    The result is the mean over the rows that have a positive, 0 if none has.
    """
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    logits = (codes @ codes.T / temperature).masked_fill(itself, -torch.inf)
    positive = (groups[:, None] == groups) & ~itself
    log_probability = logits - logits.logsumexp(1, keepdim=True)
    count = positive.sum(1)
    rows = -log_probability.masked_fill(~positive, 0.0).sum(1)[count > 0] / count[count > 0]
    return rows.sum() / max(1, len(rows))
