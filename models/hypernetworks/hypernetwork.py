"""The hypernetwork H: a picture, its current rendering and region style codes to weight deltas (paper Eqs. 1-2).

The content half E_c reads (x, y_hat); the style half E_mask reads the codes arranged by the content's regions; both
are 16 x 16 x 256 and every row of the generator's layer table has a head of its own over their concatenation, so that
stylisation can train late heads while early ones keep giving exactly the deltas they gave.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import recompute
from models.generators import interface, region_weights
from models.generators.interface import Generator, LayerEntry
from models.generators.region_weights import RegionWeights
from models.regions import CODE_SIZE, REGION_COUNT, UNKNOWN

SEEN = 256  # px of the pictures it looks at; others are enlarged or shrunk to them
CELLS = 16  # the grid heads work on


def arrange(codes: Tensor, region: Tensor) -> Tensor:
    """Tile codes over the label map and average into cells (Eq. 1's rearrange): -> [N, 256, 16, 16].

    codes [N, 4, 256]: hair, face, background, whole image (used where the label is unknown); region [N, H, W] u8.
    Averaging before convolving equals a linear first layer on the full map, which is never built.
    """
    index = torch.where(region == UNKNOWN, REGION_COUNT, region.clamp(max=REGION_COUNT).long())
    onehot = F.one_hot(index, REGION_COUNT + 1).permute(0, 3, 1, 2).to(codes.dtype)
    return torch.einsum("nrhw,nrc->nchw", F.adaptive_avg_pool2d(onehot, CELLS), codes)


def side_by_side(x: Tensor, y_hat: Tensor) -> Tensor:
    """A picture and its rendering, [N, 3, S, S] each, as what E_c reads: [N, 6, 256, 256]."""
    both = torch.cat([x, y_hat], 1)
    return both if both.shape[-1] == SEEN else F.interpolate(both, (SEEN, SEEN), mode="bilinear")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.LeakyReLU(0.2, inplace=True)
    )


class ContentEncoder(nn.Module):
    """E_c: (x, y_hat) [N, 6, 256, 256] in [-1, 1] -> [N, 512, 16, 16], projected to 256 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(6, width, 2),
            _conv(width, 2 * width, 2),
            _conv(2 * width, 4 * width, 2),
            _conv(4 * width, 4 * width),
            _conv(4 * width, 8 * width, 2),
            _conv(8 * width, 8 * width),
            _conv(8 * width, 512),
        )
        self.project = nn.Conv2d(512, 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.body(x))


class MaskEncoder(nn.Module):
    """E_mask: arranged codes [N, 256, 16, 16] -> [N, 256, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CODE_SIZE, 256, 1)
        self.second = nn.Conv2d(256, 256, 3, 1, 1)

    def forward(self, tiled: Tensor) -> Tensor:
        x = self.first(tiled * CODE_SIZE**0.5)  # codes have unit length; give the convolution unit variance
        return x + self.second(F.leaky_relu(x, 0.2))


class DeltaHead(nn.Module):
    """Deltas of one kernel: a shift a channel, out and in (the paper's), plus `rank` separable terms.

    Besides the paper's features it sees the codes themselves, as a short way for the style.
    Starts at zero deltas: only the input factors of the separable terms are random.
    """

    def __init__(self, entry: LayerEntry, rank: int, width: int = 96, hidden: int = 128) -> None:
        super().__init__()
        self.outputs, self.inputs, self.rank = entry.shape[0], entry.shape[1], rank
        self.neck = nn.Sequential(
            _conv(512, width, 2), _conv(width, width, 2), nn.Flatten(), nn.Linear(width * 16, hidden)
        )
        self.style = nn.Linear((REGION_COUNT + 1) * CODE_SIZE, hidden)
        self.out = nn.Linear(hidden, (1 + rank) * (self.outputs + self.inputs))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.bias[self.outputs + self.inputs + rank * self.outputs :].normal_(0, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """[N, 512, 16, 16] and codes [N, 4, 256] -> relative deltas [N, out, in]."""
        sizes = [self.outputs, self.inputs, self.rank * self.outputs, self.rank * self.inputs]
        hidden = F.leaky_relu(self.neck(x) + self.style(codes.flatten(1) * CODE_SIZE**0.5), 0.2)
        out, into, left, right = self.out(hidden).split(sizes, 1)
        n = x.shape[0]
        separable = torch.bmm(left.reshape(n, self.outputs, self.rank), right.reshape(n, self.rank, self.inputs))
        return out[:, :, None] + into[:, None, :] + separable * max(self.rank, 1) ** -0.5


class HyperNetwork(nn.Module):
    """H: one head for each row of a generator's layer table.

    `condition_on_regions` False ignores the label map and tiles the whole-image code (Table 4's "no mask cond").
    `region_deltas`, which needs it, gives every region deltas of its own, from its own code alone, so that regions of
    different styles do not mix (beyond the paper, whose deltas act everywhere).
    `checkpointing` recomputes activations in the backward pass, for memory.
    """

    def __init__(
        self,
        table: Sequence[LayerEntry],
        *,
        width: int = 32,
        rank: int = 6,
        condition_on_regions: bool = True,
        region_deltas: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.condition_on_regions = condition_on_regions
        self.region_deltas = region_deltas and condition_on_regions
        self.checkpointing, self.table = checkpointing, list(table)
        self.content = ContentEncoder(width)
        self.mask = MaskEncoder()
        self.heads = nn.ModuleList(DeltaHead(entry, rank) for entry in table)

    def forward(self, x: Tensor, y_hat: Tensor, codes: Tensor, region: Tensor) -> list[Tensor]:
        """Deltas [N, out, in, ...] in the order of the layer table; the regions come after N for `region_deltas`.

        x, y_hat [N, 3, S, S] in [-1, 1]; codes [N, 4, 256]; region [N, S, S] u8 of the content.
        """
        content = self.features(side_by_side(x, y_hat))
        own, tiled = self.conditions(codes, region)
        each = len(own) // len(codes)
        deltas = self.deltas(torch.cat([content.repeat_interleave(each, 0), self.mask(tiled)], 1), own)
        return [d.unflatten(0, (-1, each)) for d in deltas] if self.region_deltas else deltas

    def features(self, both: Tensor) -> Tensor:
        """What E_c sees of a picture beside its rendering [N, 6, 256, 256]: [N, C, 16, 16]."""
        return self._run(self.content, both)

    def deltas(self, features: Tensor, codes: Tensor) -> list[Tensor]:
        """Every head's answer to E_c beside E_mask [M, C + 256, 16, 16] and codes [M, 4, 256]."""
        return [self._run(head, features, codes) for head in self.heads]

    def conditions(self, codes: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """What heads and E_mask are told of the style, codes [M, 4, 256] and [M, 256, 16, 16].

        For `region_deltas` a sample counts as one of each region, whose code is everywhere.
        """
        if not self.condition_on_regions:
            region, codes = torch.full_like(region, UNKNOWN), codes[:, REGION_COUNT:].expand_as(codes)
        if not self.region_deltas:
            return codes, arrange(codes, region)
        own = codes[:, : region_weights.region_count(region)].flatten(0, 1)
        return own[:, None].expand(-1, REGION_COUNT + 1, -1), own[:, :, None, None].expand(-1, -1, CELLS, CELLS)

    def region_weights(self, region: Tensor) -> RegionWeights | None:
        """Where the deltas of each region act; None where they all act everywhere."""
        return RegionWeights(region) if self.region_deltas else None

    def _run(self, module: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return recompute.run(module, *inputs, again=self.checkpointing)

    def train_only(self, start_layer: int | str | None) -> list[nn.Parameter]:
        """Freeze what a phase must not touch and return the rest.

        None trains everything (reconstruction); a row of the table, or a resolution, trains the heads from it on
        (sections 3.5 and 4.3). Raises: ValueError when the table has no such row.
        """
        start = None if start_layer is None else interface.start_row(self.table, start_layer)
        self.requires_grad_(start is None)
        if start is not None:
            for head in self.heads[start:]:
                head.requires_grad_(True)
        return [p for p in self.parameters() if p.requires_grad]


def add(deltas: Sequence[Tensor] | None, more: Sequence[Tensor]) -> list[Tensor]:
    """Accumulate deltas over refinement_iterations; what came before is detached (section 3.3)."""
    return list(more) if deltas is None else [a.detach() + b for a, b in zip(deltas, more, strict=True)]


@torch.no_grad()
def render(
    hyper: HyperNetwork,
    generator: Generator,
    x: Tensor,
    latent: Tensor,
    codes: Tensor,
    region: Tensor,
    refinement_iterations: int,
    inversion: Tensor | None = None,
) -> Tensor:
    """y(c, s) of Eq. 2, from x [N, 3, 256, 256], latent [N, num_ws, 512], codes [N, 4, 256], region [N, 256, 256]."""
    y_hat, deltas, where = generator(latent) if inversion is None else inversion, None, hyper.region_weights(region)
    for _ in range(refinement_iterations):
        deltas = add(deltas, hyper(x, y_hat.clamp(-1, 1), codes, region))
        y_hat = generator(latent, deltas, where)
    return y_hat.clamp(-1, 1)


def mix_codes(own: Tensor, style: Tensor, strength: float | Tensor) -> Tensor:
    """Walk from the content's own codes to the style's on the unit sphere's chord: [N, 4, 256], unit length."""
    return F.normalize(own + strength * (style - own), dim=-1)
