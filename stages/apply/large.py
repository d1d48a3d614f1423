"""Pictures at the generator's own size, such as 1024 px, with the deltas of the profile's size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.generators.haar import PERIOD, without_weave
from models.generators.interface import Generator, finished
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply.stylist import Prepared
from stages.loaders import generator as generators

WEAVE = 0.05  # of an image in [-1, 1]; at 0.1 stripes of hair echo in the shadow beside them


class LargeRenderer:
    """Renders at the generator's full size. Kernels take the deltas of the kernel that has their name.

    MobileStyleGAN's kernels above 128 px have none at 1024 px: at 256 px its fitted head is in their place. So what
    128 px can show (where both part) is the small picture's, and only finer detail the large one's.
    """

    def __init__(self, ctx: Context, small: Generator) -> None:
        self.net, self.small = generators.generator(ctx, full=True), small
        self.size = self.net.size
        self.rows = [entry.name for entry in small.layer_table()]
        own = {entry.name for entry in self.net.layer_table()}
        self.shared = max(entry.resolution for entry in small.layer_table() if entry.name in own)
        self.same = own == set(self.rows)
        self.period = PERIOD * self.size // small.size  # of the weave that the small picture's deltas leave

    @torch.no_grad()
    def __call__(self, prepared: Prepared, deltas: Sequence[Tensor]) -> Tensor:
        """The image [1, 3, size, size] of a portrait with deltas of the profile's generator, not in its tone yet."""
        named = dict(zip(self.rows, deltas, strict=True))
        given = [named.get(entry.name) for entry in self.net.layer_table()]
        y = finished(self.net, self.net(prepared.latent, given, prepared.where)).clamp(-1, 1)
        if self.same:
            return y
        for _ in range(2):
            y = without_weave(y, self.period, WEAVE)
        small = finished(self.small, self.small(prepared.latent, [*deltas], prepared.where)).clamp(-1, 1)
        gap = F.adaptive_avg_pool2d(small, self.shared) - F.adaptive_avg_pool2d(y, self.shared)
        return (y + F.interpolate(gap, y.shape[-2:], mode="bicubic")).clamp(-1, 1)


def checked(ctx: Context, size: int | None) -> int | None:
    """The size that is meant: None for the profile's. Raises: UserError(2) when the generator does not give it."""
    sizes = sorted({ctx.profile.generator.size, generators.full_size(ctx)})
    if size is not None and (isinstance(size, bool) or size not in sizes):
        raise UserError(f"size is {size!r}; profile {ctx.profile.name} gives {' or '.join(map(str, sizes))} pixels", 2)
    return None if size == ctx.profile.generator.size else size
