"""Style-attentional networks: SANet (Park & Lee 2019) and ContraAST (Chen et al. 2021), which trains the same network.

Each position of the content's relu4_1 and relu5_1 features takes the style's features where these are alike.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
from models.baselines.vgg19 import Decoder, Encoder, attend, normalised, symmetric, unit

WIDTH = 512


class Attention(nn.Module):
    """Content features [N, 512, H, W] plus what they find in the style's [N, 512, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(4))

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        found = attend(self.f(normalised(content)), self.g(normalised(style)), self.h(style))
        return self.out_conv(found) + content


class Transformer(nn.Module):
    """The trained part between encoder and decoder: attention at relu4_1 and relu5_1, merged to [N, 512, H, W].

    SANet doubles relu5_1's side (`fixed`), so relu4_1's sides must be even; ContraAST resizes it to relu4_1's.
    """

    def __init__(self, fixed: bool = True) -> None:
        super().__init__()
        self.sanet4_1, self.sanet5_1 = Attention(), Attention()
        self.merge_conv = nn.Conv2d(WIDTH, WIDTH, 3)
        self.fixed = fixed

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], fixed: bool = True) -> "Transformer":
        """The published file, frozen. Raises: ValueError naming the tensors that do not fit."""
        return state_dicts.fill(state_dicts.build(cls, fixed), tensors, "a style-attentional transformer")

    def forward(self, content: tuple[Tensor, Tensor], style: tuple[Tensor, Tensor]) -> Tensor:
        fine, coarse = self.sanet4_1(content[0], style[0]), self.sanet5_1(content[1], style[1])
        size = tuple(2 * side for side in coarse.shape[2:]) if self.fixed else fine.shape[2:]
        merged = fine + F.interpolate(coarse, size=size, mode="nearest")
        return self.merge_conv(F.pad(merged, (1, 1, 1, 1), mode="reflect"))


class SANet(nn.Module):
    """Encoder, transformer and decoder of SANet, frozen. Content sides are multiples of 16, style sides any."""

    FIXED, MULTIPLE = True, 16

    def __init__(self, encoder: Encoder, decoder: Decoder, transformer: Transformer) -> None:
        super().__init__()
        self.encoder, self.decoder, self.transformer = encoder, decoder, transformer
        self.requires_grad_(False).eval()

    @classmethod
    def load(
        cls, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], transformer: Mapping[str, Tensor]
    ) -> "SANet":
        """From the three published files. Raises: ValueError naming the tensors that do not fit."""
        return cls(Encoder.load(encoder), Decoder.load(decoder), Transformer.load(transformer, cls.FIXED))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """relu4_1 and relu5_1 [N, 512, h, w] of images [N, 3, H, W] in [0, 1]."""
        *_, fine, coarse = self.encoder.taps(images)
        return fine, coarse

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """The content [N, 3, H, W] in the style [N, 3, h, w], all in [-1, 1].

        `alpha` 0..1 goes from the content attending to itself to the style, as in the paper.
        Raises: ValueError for content sides that are no multiples of 16 (SANet).
        """
        if wrong := [side for side in content.shape[2:] if side % self.MULTIPLE]:
            raise ValueError(f"a content side is {wrong[0]} px; expected multiples of {self.MULTIPLE}")
        own = self.encode(unit(content))
        features = self.transformer(own, self.encode(unit(style)))
        if alpha != 1:
            features = alpha * features + (1 - alpha) * self.transformer(own, own)
        return symmetric(self.decoder(features), content)


class ContraAST(SANet):
    """The same network as trained by contrastive learning; content of any size."""

    FIXED, MULTIPLE = False, 1
