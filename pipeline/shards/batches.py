"""Batches: their order, how samples become one, and what readers share."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


ALIGNED = 64  # bytes between the tensors of a batch


class Batches(ABC):
    """Endless batches for one rank: every epoch each sample once, in an order drawn from (seed, epoch).

    All ranks get the same number of batches an epoch, `steps`. A batch is a dict: key and json are lists of text,
    the rest torch tensors as in `fields` with N in front (uint8 stays uint8: normalise on the device).
    `step` counts the batches handed out; set it through `restore` to go on exactly where another loader stopped.
    """

    steps: int
    step: int = 0
    identity: dict[str, int]  # what another loader must share to go on where this one stopped

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader():
            self.step += 1
            yield batch

    def epoch(self) -> Iterator[dict[str, Any]]:
        """What is left of the current epoch."""
        return itertools.islice(iter(self), self.steps - self.step % self.steps)

    def state(self) -> dict[str, int]:
        """What `restore` needs, as JSON values."""
        return {**self.identity, "step": self.step}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on after `state`; raises UserError when it is from other samples or settings."""
        other = {k: v for k, v in state.items() if k != "step"}
        if other != self.identity:
            raise UserError(f"cannot resume: the checkpoint's data were {other}, now {self.identity}; start anew", 2)
        self.step = state["step"]

    @abstractmethod
    def loader(self) -> "DataLoader":
        """The batches from `self.step` on; a worker hands over whole ones, as single samples cost too much."""


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The epoch's permutation of 0..count-1."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def piece(count: int, pieces: int, i: int) -> tuple[int, int]:
    """Where piece i of `count` things begins and ends when they are split into `pieces` as equal as can be."""
    small, more = divmod(count, pieces)
    start = i * small + min(i, more)
    return start, start + small + (i < more)


def steps(count: int, batch: int, readers: int, where: str) -> int:
    """Batches an epoch for each of the `readers`: of at most `batch` samples, unless some would be empty then.

    Raises: UserError when a reader would go without any.
    """
    if count < readers:
        raise UserError(f"{where}: {count} samples for {readers} ranks or workers; expected at least one each", 2)
    return min(-(-count // (batch * readers)), count // readers)


def collate(samples: Iterable[Iterable[tuple[str, Any]]], count: int) -> dict[str, Any]:
    """The `fields` of `count` samples as one batch: tensors with N in front; key and json become lists.

    Fresh memory comes page by page and costs as much as reading. So each value is let go before the next is decoded,
    and the tensors of a batch share one buffer, which numpy asks huge pages for when it is large.
    Raises: UserError when a sample's arrays have other shapes than the first one's.
    """
    import torch

    lists: dict[str, list] = {}
    arrays: dict[str, np.ndarray] = {}
    for i, sample in enumerate(samples):
        if i == 0:
            sample = [*sample]
            lists = {name: [] for name, value in sample if not isinstance(value, np.ndarray)}
            arrays = _trays({name: value for name, value in sample if isinstance(value, np.ndarray)}, count)
        for name, value in sample:
            tray = arrays.get(name)
            if tray is None:
                lists[name].append(value)
            elif tray.shape[1:] == value.shape and tray.dtype == value.dtype:
                tray[i] = value
            else:
                expected = f"{tray.dtype}{list(tray.shape[1:])}"
                raise UserError(
                    f"a batch's {name} are {expected}, but that of {lists['key'][-1]!r} is "
                    f"{value.dtype}{list(value.shape)}; run `hypernst shards` again"
                )
            del value
    return {**lists, **{name: torch.from_numpy(tray) for name, tray in arrays.items()}}


def _trays(first: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Room for `count` arrays like each of `first`, all of it in one buffer."""
    ends = [*itertools.accumulate(-(-count * value.nbytes // ALIGNED) * ALIGNED for value in first.values())]
    buffer = np.empty(ends[-1], np.uint8)
    return {
        name: buffer[start : start + count * value.nbytes].view(value.dtype).reshape(count, *value.shape)
        for (name, value), start in zip(first.items(), [0, *ends], strict=False)
    }


def as_is(batch: Any) -> Any:
    """Instead of DataLoader's own conversion, which would make a tensor of whatever it can."""
    return batch


def single_thread(_: int) -> None:
    """In a worker: the other cores have workers of their own."""
    import cv2

    cv2.setNumThreads(0)
