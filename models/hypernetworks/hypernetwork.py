"""The hypernetwork H: an image, its current rendering and region style codes to weight deltas (paper Eqs. 1-2).

The content half E_c reads (x, y_hat). The style half E_mask reads the codes arranged by the content's regions. Both
give [N, 256, 16, 16], and each row of the generator's layer table has its own head on their concatenation. So
stylisation can train late heads while the deltas of early ones stay exactly the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import recompute
from models.generators import interface, region_weights
from models.generators.interface import Generator, LayerEntry
from models.generators.region_weights import RegionWeights
from models.regions import CODE_SIZE, REGION_COUNT, UNKNOWN

INPUT_SIZE = 256  # px; images of another size are resized
CELLS = 16  # side of the grid that heads work on


def arrange(codes: Tensor, region: Tensor) -> Tensor:
    """Tile codes over the region map and average into cells (Eq. 1's rearrange): [N, 256, 16, 16].

    codes [N, 4, 256]: hair, face, background, whole image (used where the label is unknown); region [N, H, W] u8.
    Averaging before the first layer, which is linear, equals that layer on the full map, which is never built.
    """
    index = torch.where(region == UNKNOWN, REGION_COUNT, region.clamp(max=REGION_COUNT).long())
    onehot = F.one_hot(index, REGION_COUNT + 1).permute(0, 3, 1, 2).to(codes.dtype)
    return torch.einsum("nrhw,nrc->nchw", F.adaptive_avg_pool2d(onehot, CELLS), codes)


def side_by_side(x: Tensor, y_hat: Tensor) -> Tensor:
    """An image and its rendering, [N, 3, S, S] each, concatenated and resized for E_c: [N, 6, 256, 256]."""
    both = torch.cat([x, y_hat], 1)
    return both if both.shape[-1] == INPUT_SIZE else F.interpolate(both, (INPUT_SIZE, INPUT_SIZE), mode="bilinear")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(math.gcd(8, outputs), outputs),
        nn.LeakyReLU(0.2, inplace=True),
    )


class ContentEncoder(nn.Module):
    """E_c: (x, y_hat) [N, 6, 256, 256] in [-1, 1] -> [N, 256, 16, 16], through 512 channels."""

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
        """Features [N, 256, 16, 16] of x [N, 6, 256, 256]."""
        return self.project(self.body(x))


class CodeSpace(nn.Module):
    """Centres style codes and scales their deviation to that of evenly spread unit codes, all components alike.

    Codes of portraits share most of what they hold, and the heads would see little else. Fresh it changes nothing, and
    so it does in networks whose weights know no such statistics.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(CODE_SIZE))
        self.register_buffer("gain", torch.ones(()))

    def measure(self, codes: Tensor) -> None:
        """Take the statistics of codes [N, 256]; of equal ones only the mean."""
        self.mean.copy_(codes.mean(0))
        deviation = (codes - self.mean).square().mean().sqrt()
        if deviation > 1e-6:
            self.gain.copy_(CODE_SIZE**-0.5 / deviation)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes [..., 256] in the same shape."""
        return (codes - self.mean) * self.gain

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name, fresh in (("mean", torch.zeros(CODE_SIZE)), ("gain", torch.ones(()))):
            state_dict.setdefault(prefix + name, fresh)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class MaskEncoder(nn.Module):
    """E_mask: arranged codes [N, 256, 16, 16] -> [N, 256, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CODE_SIZE, 256, 1)
        self.second = nn.Conv2d(256, 256, 3, 1, 1)

    def forward(self, tiled: Tensor) -> Tensor:
        """Features [N, 256, 16, 16] of arranged codes of the same shape."""
        x = self.first(tiled * CODE_SIZE**0.5)  # codes have unit length; the convolution needs unit variance
        return x + self.second(F.leaky_relu(x, 0.2))


class DeltaHead(nn.Module):
    """Deltas of one kernel: a shift per output and per input channel (the paper's), plus `rank` separable terms.

    Besides the paper's features it reads the codes directly, as a shortcut for the style. It starts at zero deltas:
    only the input factors of the separable terms are random.
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
        if self.out.bias.is_meta:  # has no values, and PyTorch would import all of its compiler to draw none
            return
        with torch.no_grad():
            self.out.bias[self.outputs + self.inputs + rank * self.outputs :].normal_(0, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """[N, 512, 16, 16] and codes [N, 4, 256] -> relative deltas [N, out, in]."""
        sizes = [self.outputs, self.inputs, self.rank * self.outputs, self.rank * self.inputs]
        hidden = F.leaky_relu(self.neck(x) + self.style(codes.flatten(1) * CODE_SIZE**0.5), 0.2)
        n = x.shape[0]
        with recompute.full_precision(x):
            out, into, left, right = self.out(hidden.to(self.out.weight.dtype)).split(sizes, 1)
            separable = torch.bmm(left.reshape(n, self.outputs, self.rank), right.reshape(n, self.rank, self.inputs))
            return out[:, :, None] + into[:, None, :] + separable * max(self.rank, 1) ** -0.5


class HyperNetwork(nn.Module):
    """H: one head for each row of a generator's layer table.

    `condition_on_regions` False gives every region the whole-image code (Table 4's "no mask cond") and changes nothing
    else. `region_deltas` gives each region its own deltas, from its own code alone, so that the regions' styles do not
    mix. It goes beyond the paper, whose deltas act everywhere.
    `checkpointing` recomputes activations in the backward pass to save memory.
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
        self.region_deltas = region_deltas
        self.checkpointing, self.table = checkpointing, list(table)
        self.content = ContentEncoder(width)
        self.space, self.mask = CodeSpace(), MaskEncoder()
        self.heads = nn.ModuleList(DeltaHead(entry, rank) for entry in table)

    def forward(self, x: Tensor, y_hat: Tensor, codes: Tensor, region: Tensor) -> list[Tensor]:
        """Deltas [N, out, in, ...] in the order of the layer table; with `region_deltas` the regions come after N.

        x, y_hat [N, 3, S, S] in [-1, 1]; codes [N, 4, 256]; region [N, S, S] u8 of the content.
        """
        content = self.features(side_by_side(x, y_hat))
        conditions, tiled = self.conditions(codes, region)
        regions = len(conditions) // len(codes)
        deltas = self._deltas(content.repeat_interleave(regions, 0), conditions, tiled)
        return [d.unflatten(0, (-1, regions)) for d in deltas] if self.region_deltas else deltas

    def of_region(self, content: Tensor, code: Tensor) -> list[Tensor]:
        """With `region_deltas`: one region's deltas [N, out, in] from E_c's features and its code [N, 256] alone.

        The code is as `conditions` gives it.
        """
        return self._deltas(content, *_everywhere(code))

    def _deltas(self, content: Tensor, conditions: Tensor, tiled: Tensor) -> list[Tensor]:
        deltas = self.deltas(torch.cat([content, self.mask(tiled)], 1), conditions)
        return [d.float() if d.dtype is torch.bfloat16 else d for d in deltas]  # sums of them must stay exact

    def features(self, both: Tensor) -> Tensor:
        """E_c's features [N, C, 16, 16] of an image and its rendering, concatenated [N, 6, 256, 256]."""
        return self._run(self.content, both)

    def deltas(self, features: Tensor, codes: Tensor) -> list[Tensor]:
        """The deltas of every head from E_c and E_mask concatenated [M, C + 256, 16, 16] and codes [M, 4, 256]."""
        return [self._run(head, features, codes) for head in self.heads]

    def conditions(self, codes: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """The style inputs of heads and E_mask: codes [M, 4, 256] and arranged codes [M, 256, 16, 16], centred.

        With `region_deltas` a sample becomes one per region, with that region's code everywhere.
        """
        codes = self.space(codes)
        if not self.condition_on_regions:
            codes = codes[:, REGION_COUNT:].expand_as(codes)
        if not self.region_deltas:
            return codes, arrange(codes, region if self.condition_on_regions else torch.full_like(region, UNKNOWN))
        return _everywhere(codes[:, : region_weights.region_count(region)].flatten(0, 1))

    def region_weights(self, region: Tensor) -> RegionWeights | None:
        """Where the deltas of each region act; None if all act everywhere."""
        return RegionWeights(region) if self.region_deltas else None

    def _run(self, module: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return recompute.run(module, *inputs, again=self.checkpointing)

    def train_only(self, start_layer: int | str | None) -> list[nn.Parameter]:
        """Freeze what a phase must not change, and return the parameters that it trains.

        None trains everything (reconstruction). A row of the table, or a resolution, trains the heads from there on
        (sections 3.5 and 4.3). Raises: ValueError when the table has no such row.
        """
        start = None if start_layer is None else interface.start_row(self.table, start_layer)
        self.requires_grad_(start is None)
        if start is not None:
            for head in self.heads[start:]:
                head.requires_grad_(True)
        return [p for p in self.parameters() if p.requires_grad]


def _everywhere(code: Tensor) -> tuple[Tensor, Tensor]:
    """The style inputs [M, 4, 256] and [M, 256, 16, 16] of an image that has one code [M, 256] at every pixel."""
    return code[:, None].expand(-1, REGION_COUNT + 1, -1), code[:, :, None, None].expand(-1, -1, CELLS, CELLS)


def add(deltas: Sequence[Tensor] | None, more: Sequence[Tensor]) -> list[Tensor]:
    """Add the deltas of a refinement iteration to those before, which are detached (section 3.3)."""
    return list(more) if deltas is None else [a.detach() + b for a, b in zip(deltas, more, strict=True)]


@torch.no_grad()
def predict(
    hyper: HyperNetwork,
    generator: Generator,
    x: Tensor,
    latent: Tensor,
    codes: Tensor,
    region: Tensor,
    refinement_iterations: int,
    inversion: Tensor,
) -> list[Tensor]:
    """The deltas of all refinement iterations, summed; `inversion` is the generator's image of the latent."""
    y_hat, where = inversion, hyper.region_weights(region)
    deltas = hyper(x, y_hat.clamp(-1, 1), codes, region)
    for _ in range(1, refinement_iterations):
        y_hat = generator(latent, deltas, where)
        deltas = add(deltas, hyper(x, y_hat.clamp(-1, 1), codes, region))
    return deltas


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
    y_hat = generator(latent) if inversion is None else inversion
    deltas = predict(hyper, generator, x, latent, codes, region, refinement_iterations, y_hat)
    return generator(latent, deltas, hyper.region_weights(region)).clamp(-1, 1)


def mix_codes(content: Tensor, style: Tensor, strength: float | Tensor) -> Tensor:
    """Interpolate linearly from the content's own codes to the style's, then normalise: [N, 4, 256]."""
    return F.normalize(content + strength * (style - content), dim=-1)
