"""Batches: their order, how samples are collated, and what both loaders share."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


ALIGNED = 64  # the tensors of a batch begin at multiples of this many bytes


class Batches(ABC):
    """Endless batches for one rank: each sample once per epoch, in a random order that depends on (seed, epoch).

    All ranks get the same number of batches per epoch, `steps`. A batch is a dict: key and json are lists of text,
    the rest are torch tensors [N, ...] of the arrays in `fields` (uint8 stays uint8: normalise it on the device).
    `step` counts the batches that were yielded. `restore` sets it, to resume exactly where another loader stopped.
    """

    steps: int
    step: int = 0
    identity: dict[str, int | str]  # settings that a loader must share to resume where this one stopped

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for batch in self.loader():
                self.step += 1
                yield batch
        except UserError as error:  # DataLoader puts a worker's traceback in front
            raise UserError(str(error).rpartition("UserError: ")[2], error.status) from None

    def epoch(self) -> Iterator[dict[str, Any]]:
        """The remaining batches of the current epoch."""
        return itertools.islice(iter(self), self.steps - self.step % self.steps)

    def state(self) -> dict[str, int | str]:
        """The state for `restore`, as JSON values."""
        return {**self.identity, "step": self.step}

    def restore(self, state: Mapping[str, int | str]) -> None:
        """Continue after `state`. Raises: UserError(2) when it is from other samples or settings."""
        other = {k: v for k, v in state.items() if k != "step"}
        if other != self.identity:
            raise UserError(f"cannot resume: the data was {other}, now it is {self.identity}; start a new run", 2)
        self.step = int(state["step"])

    @abstractmethod
    def loader(self) -> "DataLoader":
        """The batches from `self.step` on; workers send whole batches, as sending single samples is slow."""


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of 0..count-1 for this epoch: i64 [count]."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def piece(count: int, pieces: int, i: int) -> tuple[int, int]:
    """Start and stop of piece i when `count` items are split into `pieces` that are as equal as possible."""
    small, more = divmod(count, pieces)
    start = i * small + min(i, more)
    return start, start + small + (i < more)


def steps(count: int, batch: int, readers: int, where: str) -> int:
    """The number of batches per epoch for each of the `readers`.

    A batch has at most `batch` samples; it has more only where a batch would be empty otherwise.
    Raises: UserError(2) when there are fewer samples than readers.
    """
    if count < readers:
        raise UserError(f"{where}: {count} samples for {readers} ranks or workers; expected at least one each", 2)
    return min(-(-count // (batch * readers)), count // readers)


def collate(samples: Iterable[Iterable[tuple[str, Any]]], count: int) -> dict[str, Any]:
    """The `fields` of `count` samples as one batch: tensors [N, ...]; key and json become lists.

    Allocating memory page by page takes as long as reading. So each value is freed before the next one is decoded, and
    the tensors of a batch share one buffer, for which numpy requests huge pages when it is large.
    Raises: UserError when the arrays of a sample have other shapes than those of the first one.
    """
    import torch

    lists: dict[str, list] = {}
    arrays: dict[str, np.ndarray] = {}
    for i, sample in enumerate(samples):
        if i == 0:
            sample = [*sample]
            lists = {name: [] for name, value in sample if not isinstance(value, np.ndarray)}
            arrays = _allocate({name: value for name, value in sample if isinstance(value, np.ndarray)}, count)
        for name, value in sample:
            array = arrays.get(name)
            if array is None:
                lists[name].append(value)
            elif array.shape[1:] == value.shape and array.dtype == value.dtype:
                array[i] = value
            else:
                expected = f"{array.dtype}{list(array.shape[1:])}"
                raise UserError(
                    f"sample {lists['key'][-1]!r}: its {name} does not fit the batch: expected {expected}, but it is "
                    f"{value.dtype}{list(value.shape)}; run `hypernst shards` again"
                )
            del value
    return {**lists, **{name: torch.from_numpy(array) for name, array in arrays.items()}}


def _allocate(first: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Empty arrays [count, ...] for each array of `first`, all in one buffer."""
    ends = [*itertools.accumulate(-(-count * value.nbytes // ALIGNED) * ALIGNED for value in first.values())]
    buffer = np.empty(ends[-1], np.uint8)
    return {
        name: buffer[start : start + count * value.nbytes].view(value.dtype).reshape(count, *value.shape)
        for (name, value), start in zip(first.items(), [0, *ends], strict=False)
    }
