"""What every generator has in common: the table of kernels that delta heads are built from, and its methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from models.generators.haar import without_weave
from models.generators.region_weights import RegionWeights


@dataclass(frozen=True)
class LayerEntry:
    """A row of the layer table: one kernel that weight deltas may be predicted for."""

    index: int
    name: str
    resolution: int
    kind: str  # "conv3x3", "pointwise" or "to_img"
    shape: tuple[int, ...]


Deltas = Sequence[Tensor | None]
FULL_UNTIL = 32  # px; autocast narrows only higher resolutions, where the time goes: what lies below spreads everywhere


class Generator(Protocol):
    """What the project needs of a frozen generator of any kind; `num_ws` is the number of W+ layers.

    With `checkpointing` the backward pass recomputes the activations of each resolution block, so that only one block's
    are held. Images of a `wavelet` generator are an inverse Haar transform.
    """

    wavelet: bool
    size: int
    num_ws: int
    checkpointing: bool

    def __call__(
        self, latent: Tensor, deltas: Deltas | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Images [N, 3, size, size] about [-1, 1] of latents [N, 512] or [N, num_ws, 512].

        Deltas have a kernel's shape after [N], or after [N, region_weights.region_count] if each region has its own.
        """

    def layer_table(self) -> list[LayerEntry]:
        """The kernels that weight deltas apply to, in the order of `deltas`."""

    def map(self, z: Tensor) -> Tensor:
        """Map z [N, 512] to w [N, 512]."""

    def mean_latent(self, samples: int = ..., seed: int = 0) -> Tensor:
        """The mean of `samples` mapped z, [512]; the same for the same seed."""


def finished(generator: Generator, image: Tensor) -> Tensor:
    """The image [N, 3, S, S] of a generator with deltas, without the weave that these leave in wavelets."""
    return without_weave(image) if generator.wavelet else image


def moved(kernel: Tensor, delta: Tensor) -> Tensor:
    """The kernel times 1 + delta (Eq. 2), in the kernel's precision: a bfloat16 sum would lose small deltas."""
    return kernel + kernel * delta.to(kernel.dtype)


def start_row(table: Sequence[LayerEntry], start: int | str) -> int:
    """The row that `start` names: a row's number, or the resolution of the first such row, as in "32px".

    Raises: ValueError when it is past the table's end or no row has that resolution.
    """
    if isinstance(start, int):
        if not 0 <= start < len(table):
            raise ValueError(f"start layer {start} is none of the generator's {len(table)}; they count from 0")
        return start
    number = start.removesuffix("px")
    sides = sorted({entry.resolution for entry in table})
    if number == start or not number.isdecimal() or int(number) not in sides:
        raise ValueError(
            f"start layer {start!r} is no resolution of the generator; expected a row's number or one of "
            + ", ".join(f"{side}px" for side in sides)
        )
    return next(entry.index for entry in table if entry.resolution == int(number))
