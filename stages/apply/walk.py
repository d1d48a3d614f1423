"""A walk of one portrait through several looks, at equal steps of what is seen."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from models.generators.tone import Tone
from models.hypernetworks.hypernetwork import mix_codes
from models.metrics.lpips import LPIPS
from pipeline import images, weights
from pipeline.context import Context
from pipeline.progress import pause
from stages.apply.look import Look
from stages.apply.refine import Refined
from stages.apply.stylist import Stylist
from stages.portraits.portrait import Portrait, Target

MOST_FRAMES = 1000
KEYS = 8  # pictures of a leg, between which the walk is measured


class Walk:
    """The legs between looks: codes move on the sphere of unit codes, or, where `ends` are given, deltas on a line.

    `ends` are the looks refined, whose deltas and tones are mixed. A place is a number from 0, the first look, to
    len(looks) - 1, the last.
    """

    def __init__(
        self,
        ctx: Context,
        stylist: Stylist,
        content: Portrait,
        looks: Sequence[Look],
        ends: Sequence[Refined] | None = None,
    ) -> None:
        self.ctx, self.stylist, self.content, self.ends = ctx, stylist, content, ends
        self.codes = [torch.from_numpy(look.codes(content)) for look in looks]
        self.palettes = [look.palette(content) for look in looks]

    @torch.no_grad()
    def render(self, place: float) -> np.ndarray:
        """The picture at a place, RGB u8 [256, 256, 3]."""
        pause()
        leg = min(int(place), len(self.codes) - 2)
        part = place - leg
        if self.ends is None:
            one, other = self.palettes[leg : leg + 2]
            palette = None if one is None or other is None else np.float32(1 - part) * one + np.float32(part) * other
            start, end = self.codes[leg : leg + 2]
            codes = mix_codes(start, end, part) if 0 < part < 1 else end if part else start  # styles are met to the bit
            return self.stylist.render(self.content, Target(codes.numpy(), palette))
        first, last = self.ends[leg : leg + 2]
        deltas = _between(first.deltas, last.deltas, part)
        tone = Tone(*_between(first.tone, last.tone, part)) if first.tone and last.tone else None
        return self.stylist.draw(self.stylist.prepare(self.content), deltas, tone)

    @torch.no_grad()
    def even(self, frames: int) -> list[float]:
        """The places of `frames` pictures from end to end, at equal steps of LPIPS-alex along the walk.

        It is measured between KEYS pictures of each leg, and taken to be even between two of these: strength itself is
        not, its first half does a quarter to a third of the change.
        """
        lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(self.ctx.device)
        places = np.linspace(0, len(self.codes) - 1, KEYS * (len(self.codes) - 1) + 1)
        seen = [images.to_tensor(self.render(float(place))).to(self.ctx.device) for place in places]
        steps = [float(lpips(a, b)) for a, b in itertools.pairwise(seen)]
        travelled = np.concatenate([[0.0], np.cumsum(np.array(steps) + 1e-6)])  # what does not change still takes time
        return [float(x) for x in np.interp(np.linspace(0, travelled[-1], frames), travelled, places)]


def _between(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor], part: float) -> list[torch.Tensor]:
    return [torch.lerp(a, b, part) for a, b in zip(one, other, strict=True)]
