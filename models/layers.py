"""A generator's own list of the kernels that weight deltas may be predicted for; heads are built from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class LayerEntry:
    """A row of the layer table: one kernel that weight deltas may be predicted for."""

    index: int
    name: str
    resolution: int
    kind: str  # "conv3x3", "pointwise" or "to_img"
    shape: tuple[int, ...]


Deltas = Sequence[Tensor | None]


class Generator(Protocol):
    """What the project needs of a frozen generator, whatever its kind; `slots` is the length of its W+ latents."""

    size: int
    slots: int

    def __call__(self, latent: Tensor, deltas: Deltas | None = None) -> Tensor:
        """Pictures [N, 3, size, size] about [-1, 1] of latents [N, 512] or [N, slots, 512]."""

    def layer_table(self) -> list[LayerEntry]:
        """The kernels that weight deltas apply to, in the order of `deltas`."""

    def map(self, z: Tensor) -> Tensor:
        """Map z [N, 512] to w [N, 512]."""

    def mean_latent(self, samples: int = ..., seed: int = 0) -> Tensor:
        """The mean of `samples` mapped z, [512]; the same for the same seed."""
