"""The random-access reader of shards: it reads every sample by its number.

Step s of a run is always the same batch for the same seed, batch size and number of ranks. The number of workers does
not matter. So a run resumes at a step. All that holds for shards in a store elsewhere as well: the index says where
each sample lies, so that only its own bytes are fetched, those of a batch at the same time.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.shards import index as shards
from pipeline.shards.batches import Batches, collate, order, piece, steps
from pipeline.shards.index import Shard
from pipeline.shards.sample import REPAIR, Decoded, decode, fields
from pipeline.shards.store import Span, Store, is_url
from pipeline.training.prefetch import read_ahead

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

OPEN = 64  # most tars open in a process: the system allows about a thousand files in all


class Samples:
    """The samples of one collection and split, by number; each process opens the files when it first needs them.

    `folder` may be the URL of a store. Files are read with pread, not mapped: when a file is cut meanwhile, this gives
    an error and does not kill the process, and what was read does not count as the process's memory. When the shards
    are packed again meanwhile, reading stops at the next file to be opened.
    Raises: UserError when the index or a tar is missing or cut, or the collection has no such split.
    """

    def __init__(self, folder: Path | str, collection: str, split: str = "train") -> None:
        self.folder = Store(str(folder)) if is_url(folder) else Path(folder)
        self._watch = shards.Watch(self.folder)
        self.provenance, listed = shards.read_index(self.folder)
        self._watch.check()
        self.shards = [s for s in listed if (s.collection, s.split) == (collection, split)]
        self._ends = [*itertools.accumulate(s.samples for s in self.shards)]
        self._files: dict[int, FileIO] = {}
        self._buffer = bytearray()
        if not self.shards:
            existing = sorted({f"{s.collection}-{s.split}" for s in listed})
            raise UserError(
                f"{self.folder}: no samples of {collection}-{split}; there are "
                f"{', '.join(existing) or 'none'}; run `hypernst shards`"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_buffer": bytearray()}

    def keys(self) -> list[str]:
        """All keys, in the order of the tars."""
        return [key for shard in self.shards for key in shard.keys]

    def identity(self) -> str:
        """See `index.identity`."""
        return shards.identity(self.shards)

    def raw(self, number: int) -> tuple[str, dict[str, memoryview]]:
        """The key and the encoded members of a sample; the next call overwrites the members.

        Raises: UserError when the tar holds something else at the sample's offset.
        """
        n, i = self._place(number)
        part = span(self.shards[n], i)
        if isinstance(self.folder, Store):
            return self._members(n, i, self.folder.spans([part])[0])
        length = part.stop - part.start
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        if os.preadv(self._file(n, self.folder), [memoryview(self._buffer)[:length]], part.start) != length:
            raise UserError(f"{self._path(n)}: ends within sample {self.shards[n].keys[i]!r}; {REPAIR}")
        return self._members(n, i, self._buffer)

    def batch(self, numbers: Sequence[int]) -> Iterator[Iterator[tuple[str, Any]]]:
        """Yield the `fields` of each sample; use them before the next ones. From a store they come at the same time."""
        if not isinstance(self.folder, Store):
            yield from map(self.fields, numbers)
            return
        places = [self._place(number) for number in numbers]
        found = self.folder.spans(span(self.shards[n], i) for n, i in places)
        self._watch.check()  # after reading, as above
        for (n, i), data in zip(places, found, strict=True):
            key, members = self._members(n, i, data)
            yield fields(members, key)

    def fields(self, number: int) -> Iterator[tuple[str, Any]]:
        """The `fields` of a sample; use them before the next sample is read."""
        key, members = self.raw(number)
        return fields(members, key)

    def __getitem__(self, number: int) -> Decoded:
        key, members = self.raw(number)
        return decode(members, key)

    def _place(self, number: int) -> tuple[int, int]:
        """Which shard a sample lies in, and which of its samples it is."""
        n = bisect.bisect_right(self._ends, number)
        return n, number - (self._ends[n - 1] if n else 0)

    def _members(self, n: int, i: int, data: bytes | bytearray) -> tuple[str, dict[str, memoryview]]:
        """The key and the members of sample i of shard n, whose bytes in the tar are at the start of `data`."""
        shard, view, out = self.shards[n], memoryview(data), {}
        start = shard.offsets[i]
        for member, (name, at, size) in zip(shards.MEMBERS, shards.members(shard, i), strict=True):
            begin = at - start + shards.BLOCK
            if not data.startswith(name.encode() + b"\0", at - start):  # a tar's header begins with the name
                actual = bytes(view[at - start : at - start + 100]).rstrip(b"\0")
                raise UserError(
                    f"{self._path(n)}, offset {at}: holds {actual[:40]!r}, but index.json says {name!r}; {REPAIR}"
                )
            out[member] = view[begin : begin + size]
        return shard.keys[i], out

    def _path(self, n: int) -> str:
        name = self.shards[n].name
        return self.folder.path(name) if isinstance(self.folder, Store) else str(self.folder / name)

    def _file(self, n: int, folder: Path) -> int:
        if n not in self._files and len(self._files) >= OPEN:
            self._files.pop(next(iter(self._files))).close()  # the one that was opened first
        if n not in self._files:
            self._files[n] = (folder / self.shards[n].name).open("rb", buffering=0)
            self._watch.check()  # after opening: what is open now is what the index lists
        return self._files[n].fileno()


def span(shard: Shard, i: int) -> Span:
    """Where sample i of a shard lies, from its first header to the last byte of its last member."""
    *_, (_, at, size) = shards.members(shard, i)
    return Span(shard.name, shard.offsets[i], at + shards.BLOCK + size, shard.bytes)


class Loader(Batches):
    """Batches of about `batch` samples each, in random order; a run resumes exactly with any number of workers.

    With `full` a batch has exactly `batch` samples: it goes on into the next epoch where one ends.
    Raises: UserError(2) when there are fewer samples than ranks.
    """

    def __init__(
        self,
        samples: Samples,
        batch: int,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        pin: bool = False,
        full: bool = False,
    ) -> None:
        self.steps = steps(len(samples), batch, ranks, str(samples.folder))
        self.identity = {"seed": seed, "batch": batch, "ranks": ranks, "data": samples.identity()}
        self._batches = _Numbered(samples, seed, self.steps, rank, ranks, batch if full else None)
        self._workers, self._pin = workers, pin

    def numbers(self) -> Iterator[int]:
        """The numbers of the batches to read, from `step` on."""
        return itertools.count(self.step)

    def loader(self) -> "DataLoader":
        """See `Batches`."""
        return read_ahead(self._batches, _From(self.numbers), self._workers, pin=self._pin)


class _From:
    """The numbers of batches, in the form of a sampler for DataLoader."""

    def __init__(self, numbers: Callable[[], Iterator[int]]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return self.numbers()


class _Numbered:
    """A map-style dataset whose item `step` is the batch of that step: of exactly `full` samples, if that is given."""

    def __init__(self, samples: Samples, seed: int, steps: int, rank: int, ranks: int, full: int | None) -> None:
        self.samples, self.seed, self.steps, self.rank, self.ranks, self.full = samples, seed, steps, rank, ranks, full
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __getitem__(self, step: int) -> dict[str, Any]:
        if self.full:
            first = (step * self.ranks + self.rank) * self.full
            places = [divmod(place, len(self.samples)) for place in range(first, first + self.full)]
            numbers = [int(self._epoch(epoch)[i]) for epoch, i in places]
        else:
            epoch, k = divmod(step, self.steps)
            start, stop = piece(len(self.samples), self.steps * self.ranks, k * self.ranks + self.rank)
            numbers = self._epoch(epoch)[start:stop].tolist()
        return collate(self.samples.batch(numbers), len(numbers))

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, order(len(self.samples), self.seed, epoch))
        return self._order[1]
