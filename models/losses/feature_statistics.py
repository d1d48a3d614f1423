"""Losses on features of the normalised VGG19: those that SANet, ContraAST and ArtFlow share.

`taps` are relu1_1, relu2_1, … of a batch of images, each [N, C, h, w].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.baselines.vgg19 import moments, normalised

Terms = dict[str, Tensor]

SANET = {"content": 1.0, "style": 3.0, "identity1": 50.0, "identity2": 1.0}  # identities as in the authors' erratum
ARTFLOW = {"content": 0.1, "style": 1.0}


@dataclass(frozen=True)
class Seen:
    """Images [N, 3, H, W] in [0, 1] and their taps."""

    image: Tensor
    taps: Sequence[Tensor]


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the terms that `weights` names."""
    return torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()


def style_loss(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """The squared differences of mean and of std per channel, summed over the taps."""
    pairs = [(moments(a), moments(b)) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack([F.mse_loss(a[i], b[i]) for a, b in pairs for i in (0, 1)]).sum()


def sanet_terms(out: Seen, content: Seen, style: Seen, own: Seen, theirs: Seen) -> Terms:
    """SANet's terms, five taps each: `out` is the content in the style, `own` and `theirs` each in itself."""
    identities = [(own, content), (theirs, style)]
    return {
        "content": torch.stack(
            [F.mse_loss(normalised(out.taps[i]), normalised(content.taps[i])) for i in (3, 4)]
        ).sum(),
        "style": style_loss(out.taps, style.taps),
        "identity1": torch.stack([F.mse_loss(a.image, b.image) for a, b in identities]).sum(),
        "identity2": torch.stack(
            [F.mse_loss(x, y) for a, b in identities for x, y in zip(a.taps, b.taps, strict=True)]
        ).sum(),
    }


def artflow_terms(out: Sequence[Tensor], content: Sequence[Tensor], style: Sequence[Tensor]) -> Terms:
    """ArtFlow's terms, of four taps each: the content's is on relu4_1 as it is."""
    return {"content": F.mse_loss(out[3], content[3]), "style": style_loss(out[:4], style[:4])}
