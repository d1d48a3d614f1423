"""ContraAST's contrastive losses (Chen et al. 2021): stylised images of one style attract, so do those of one content.

A batch of h contents and styles has 2 h images: row i < h is content i in style i, row h + i is content i + 1 in
style i.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.losses.feature_statistics import SANET, Terms

TEMPERATURE = 0.2
WEIGHTS = SANET | {"style": 1.0, "contrast_content": 0.3, "contrast_style": 0.3, "adversarial": 5.0}
STYLE_WIDTH, CONTENT_WIDTH, CODE = 256, 512, 128  # channels of relu3_1 and relu4_1, and of the embeddings


def projection(inputs: int, hidden: int) -> nn.Sequential:
    """A projection head, which is only used in training."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, CODE))


def rows(count: int) -> tuple[Tensor, Tensor]:
    """Which content and which style each of the 2 `count` images has, as indexes [2 count]."""
    i = torch.arange(count)
    return torch.cat([i, (i + 1) % count]), torch.cat([i, i])


def embed(head: nn.Module, features: Tensor) -> Tensor:
    """Unit embeddings [N, 128] of features [N, C, H, W], summed over positions."""
    return F.normalize(head(features.sum((2, 3))), eps=0.0)


def contrast(codes: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """The loss of embeddings [N, D], summed over rows: each has one positive, the other row of the same `own` [N].

    Rows that share `own` or `other` [N] with it are no negatives.
    """
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    positive = (own[:, None] == own) & ~itself
    negative = (own[:, None] != own) & (other[:, None] != other)
    logits = (codes @ codes.T / TEMPERATURE).masked_fill(~(positive | negative), -torch.inf)
    return F.cross_entropy(logits, positive.int().argmax(1), reduction="sum")


def contrastive_terms(style_codes: Tensor, content_codes: Tensor) -> Terms:
    """Both losses of the embeddings [2 h, 128] of the stylised images."""
    content, style = (index.to(style_codes.device) for index in rows(len(style_codes) // 2))
    return {
        "contrast_content": contrast(content_codes, content, style),
        "contrast_style": contrast(style_codes, style, content),
    }
