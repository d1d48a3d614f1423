"""Encoders of a portrait into a published StyleGAN2's latents: e4e (Tov et al. 2021), pSp, HyperStyle's W-encoder.

Modules carry the published names, so the state dict is the file's `encoder.*`.
"""

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import state_dicts
from models.backbones import irse
from models.backbones.irse import Backbone
from models.stylegan_ops import LATENT, EqualLinear

STYLES = range(4, 19, 2)  # number of styles, of generators from 8 to 1024 px
WIDTH = 512  # channels of the features that style heads read
COARSE, MIDDLE = 3, 7  # styles before these read 16 x 16 and 32 x 32 features, the others 64 x 64


class StyleHead(nn.Module):
    """3x3 convolutions of stride 2 down to one cell, then an equalised linear layer: [N, WIDTH, s, s] -> [N, 512]."""

    def __init__(self, side: int) -> None:
        super().__init__()
        halvings = int(math.log2(side))
        self.convs = nn.Sequential(
            *(layer for _ in range(halvings) for layer in (nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.LeakyReLU(0.01)))
        )
        self.linear = EqualLinear(WIDTH, LATENT)

    def forward(self, x: Tensor) -> Tensor:
        """One style of features x [N, WIDTH, s, s]."""
        return self.linear(self.convs(x).flatten(1))


class Encoder(Backbone):
    """What all encoders share: `forward` adds the average latent to the offsets that `codes` predicts."""

    latent_avg: Tensor | None = None
    num_ws: int

    def codes(self, x: Tensor) -> Tensor:
        """Offsets [N, num_ws, 512] from the average latent, of images [N, 3, 256, 256] in [-1, 1]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """W+ latents [N, num_ws, 512] of images [N, 3, 256, 256]. Raises: ValueError when latent_avg is missing."""
        if self.latent_avg is None:
            raise ValueError("the encoder's file has no latent_avg; set it to the generator's, see mean_latent")
        return self.codes(x) + self.latent_avg.to(x.device)

    def _start(self, average: Tensor | None, what: str) -> None:
        if average is None:
            return
        if average.numel() not in (512, self.num_ws * 512):
            raise ValueError(f"not {what}: latent_avg is {list(average.shape)}; expected [{self.num_ws}, 512] or [512]")
        self.latent_avg = average.float().reshape(-1, 512)


class PSP(Encoder):
    """pSp (Richardson et al. 2021): a style for every W+ layer, from a feature pyramid."""

    name = "a pSp encoder"

    def __init__(self, styles: int = 18) -> None:
        super().__init__()
        self.num_ws = styles
        sides = (16 if i < COARSE else 32 if i < MIDDLE else 64 for i in range(styles))
        self.styles = nn.ModuleList(StyleHead(side) for side in sides)
        fine, middle = irse.UNITS[1][0], irse.UNITS[2][0]
        self.latlayer1, self.latlayer2 = nn.Conv2d(middle, WIDTH, 1), nn.Conv2d(fine, WIDTH, 1)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Build from the file's `encoder.*` tensors without that prefix, and `latent_avg` if it is there.

        The number of styles is inferred. Raises: ValueError, in one line, when they are not those of such an encoder.
        """
        state = dict(tensors)
        average = state.pop("latent_avg", None)
        styles = len(state_dicts.numbers(state, "styles."))
        if styles not in STYLES:
            raise ValueError(
                f"not {cls.name}: {styles} styles among {len(state)} tensors "
                f"({state_dicts.some(state)}); expected styles.* for 14 (256 px) or 18 (1024 px) W+ layers"
            )
        what = f"{cls.name} of {styles} styles"
        net = state_dicts.fill(state_dicts.build(cls, styles), state, what)
        net._start(average, what)
        return net

    def codes(self, x: Tensor) -> Tensor:
        """Offsets [N, num_ws, 512] from the average latent, of images [N, 3, 256, 256] in [-1, 1]."""
        return self.predict(x, self.num_ws)

    def predict(self, x: Tensor, count: int) -> Tensor:
        """The outputs of the first `count` style heads: [N, count, 512]."""
        fine, middle, coarse = self.features(x, (6, 20, 23))
        middle = self._merge(coarse, self.latlayer1(middle))
        fine = self._merge(middle, self.latlayer2(fine))
        levels = [coarse] * COARSE + [middle] * (MIDDLE - COARSE) + [fine] * max(0, self.num_ws - MIDDLE)
        return torch.stack([head(features) for head, features in zip(self.styles[:count], levels, strict=False)], 1)

    @staticmethod
    def _merge(above: Tensor, beside: Tensor) -> Tensor:
        return F.interpolate(above, beside.shape[-2:], mode="bilinear", align_corners=True) + beside


class Encoder4Editing(PSP):
    """e4e: pSp's network; the first style is used in all W+ layers, the others are offsets from it."""

    name = "an e4e encoder"

    def codes(self, x: Tensor, unlocked: int | None = None) -> Tensor:
        """Offsets [N, num_ws, 512] from the average latent, of images [N, 3, 256, 256] in [-1, 1].

        Only the first `unlocked` W+ layers differ from the first one: training unlocks them one by one.
        """
        styles = self.predict(x, unlocked or self.num_ws)
        first = styles[:, :1]
        locked = first.expand(-1, self.num_ws - styles.shape[1], -1)
        return torch.cat([first, first + styles[:, 1:], locked], 1)


def unlocked(step: int, every: int, num_ws: int) -> int:
    """How many W+ layers are unlocked at a step: one for 10 x `every` steps, then one more every `every` steps."""
    return min(num_ws, max(1, step // every - 8))


class WEncoder(Encoder):
    """HyperStyle's encoder into W: one style, repeated over the W+ layers."""

    def __init__(self, styles: int = 18) -> None:
        super().__init__()
        self.num_ws = styles
        self.linear = EqualLinear(512, 512)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], *, styles: int | None = None) -> "WEncoder":
        """Build from the file's `encoder.*` tensors without that prefix, and `latent_avg` if it is there.

        `styles` defaults to latent_avg's length, or 18. Raises: ValueError, in one line, when they do not fit.
        """
        state = dict(tensors)
        average = state.pop("latent_avg", None)
        if styles is None:
            styles = len(average) if average is not None and average.ndim == 2 and len(average) > 1 else STYLES[-1]
        what = f"a W-encoder for {styles} styles"
        net = state_dicts.fill(state_dicts.build(cls, styles), state, what)
        net._start(average, what)
        return net

    def codes(self, x: Tensor) -> Tensor:
        """Offsets [N, num_ws, 512] from the average latent, the same for all W+ layers."""
        return self.linear(self.features(x)[0].mean((2, 3)))[:, None].repeat(1, self.num_ws, 1)


def load(tensors: Mapping[str, Tensor], kind: str = "") -> Encoder:
    """Build the encoder that the tensors belong to. Raises: ValueError when there is none.

    pSp's tensors have e4e's names and shapes, so `kind` must be "psp" for them.
    """
    if kind == "psp":
        return PSP.load(tensors)
    return WEncoder.load(tensors) if "linear.weight" in tensors else Encoder4Editing.load(tensors)
