"""PAMA (Luo et al. 2022): content features aligned with the style's by attention, three times in a row."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
from models.baselines.vgg19 import Decoder, Encoder, attend, normalised, symmetric, unit

WIDTH, INNER = 512, 256


def _conv(inputs: int, outputs: int, size: int = 1) -> nn.Conv2d:
    """Padded by reflection; its keys are those of a plain convolution."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode="reflect")


class Attention(nn.Module):
    """Style features [N, 512, h, w] averaged for each position of the content's [N, 512, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h = (_conv(WIDTH, INNER) for _ in range(3))
        self.out_conv = _conv(INNER, WIDTH)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        queries, keys = F.relu6(self.f(normalised(content))), F.relu6(self.g(normalised(style)))
        return F.relu6(self.out_conv(attend(queries, keys, F.relu6(self.h(style)))))


class Fuse(nn.Module):
    """Mixes content and aligned features, both [N, 512, H, W], by a learnt weight for each position."""

    def __init__(self) -> None:
        super().__init__()
        self.proj1 = _conv(2 * WIDTH, WIDTH)
        self.proj2, self.proj3 = _conv(WIDTH, WIDTH), _conv(WIDTH, WIDTH)
        self.fuse1x, self.fuse3x, self.fuse5x = (_conv(WIDTH, 1, size) for size in (1, 3, 5))

    def forward(self, content: Tensor, aligned: Tensor) -> Tensor:
        both = self.proj1(torch.cat([content, aligned], 1))
        weight = sum(conv(both).sigmoid() for conv in (self.fuse1x, self.fuse3x, self.fuse5x)) / 3
        return weight * self.proj2(content) + (1 - weight) * self.proj3(aligned)


class Alignment(nn.Module):
    """One progressive alignment of content to style features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = _conv(WIDTH, WIDTH, 3)
        self.attn, self.fuse = Attention(), Fuse()
        self.conv_out = _conv(WIDTH, WIDTH, 3)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "Alignment":
        """One of the files PAMA1.pth to PAMA3.pth, frozen. Raises: ValueError naming the tensors that do not fit."""
        return state_dicts.fill(state_dicts.build(cls), tensors, "an alignment module of PAMA")

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        c, s = F.relu6(self.conv_in(content)), F.relu6(self.conv_in(style))
        return self.fuse(c, F.relu6(self.conv_out(self.attn(c, s))))


class PAMA(nn.Module):
    """Encoder, three alignments and decoder, frozen; images of any size."""

    def __init__(self, encoder: Encoder, alignments: list[Alignment], decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.alignments, self.decoder = encoder, nn.ModuleList(alignments), decoder
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls,
        encoder: Mapping[str, Tensor],
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        third: Mapping[str, Tensor],
        decoder: Mapping[str, Tensor],
    ) -> "PAMA":
        """From the five published files; the encoder's layers after relu4_1 may be missing.

        Raises: ValueError naming the tensors that do not fit.
        """
        alignments = [Alignment.load(tensors) for tensors in (first, second, third)]
        return cls(Encoder.load(encoder, 4), alignments, Decoder.load(decoder))

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """The content [N, 3, H, W] in the style [N, 3, h, w], all in [-1, 1].

        `alpha` 0..1 goes from the content's features, which the decoder was trained to reconstruct, to the aligned.
        """
        own, theirs = self.encoder(unit(content)), self.encoder(unit(style))
        features = own
        for align in self.alignments:
            features = align(features, theirs)
        return symmetric(self.decoder(alpha * features + (1 - alpha) * own), content)
