"""Supervised contrastive loss (Khosla et al. 2020): rows of one group attract each other and repel all others."""

import torch
from torch import Tensor


def multi_positive(codes: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """The loss of unit codes [N, D] whose group numbers are `groups` [N]; every other row of a group is a positive.

    For each row the mean over its positives of -log of their share in the softmax over all other rows, then the mean
    over those rows that have a positive (0 where none has).
    """
    alone = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    logits = (codes @ codes.T / temperature).masked_fill(alone, -torch.inf)
    positive = (groups[:, None] == groups) & ~alone
    share = logits - logits.logsumexp(1, keepdim=True)
    count = positive.sum(1)
    rows = -share.masked_fill(~positive, 0.0).sum(1)[count > 0] / count[count > 0]
    return rows.sum() / max(1, len(rows))
