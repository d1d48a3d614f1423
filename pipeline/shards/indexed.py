"""The random-access reader of shards: it reads every sample by its number.

Step s of a run is always the same batch for the same seed, batch size and number of ranks. The number of workers does
not matter. So a run resumes at a step. For shards that are not on a local disk, `streaming` reads in sequence.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.shards import index as shards
from pipeline.shards.batches import Batches, as_is, collate, order, piece, single_thread, steps
from pipeline.shards.sample import REPAIR, Decoded, decode, fields

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

OPEN = 64  # most tars open in a process: the system allows about a thousand files in all


class Samples:
    """The samples of one collection and split, by number; each process opens the files when it first needs them.

    Files are read with pread, not mapped: when a file is cut meanwhile, this gives an error and does not kill the
    process, and what was read does not count as the process's memory.
    Raises: UserError when the index or a tar is missing or cut, or the collection has no such split.
    """

    def __init__(self, folder: Path, collection: str, split: str = "train") -> None:
        self.folder = folder
        _, listed = shards.read_index(folder)
        self.shards = [s for s in listed if (s.collection, s.split) == (collection, split)]
        self._ends = [*itertools.accumulate(s.samples for s in self.shards)]
        self._files: dict[int, FileIO] = {}
        self._buffer = bytearray()
        if not self.shards:
            existing = sorted({f"{s.collection}-{s.split}" for s in listed})
            raise UserError(
                f"{folder}: no samples of {collection}-{split}; there are "
                f"{', '.join(existing) or 'none'}; run `hypernst shards`"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_buffer": bytearray()}

    def keys(self) -> list[str]:
        """All keys, in the order of the tars."""
        return [key for shard in self.shards for key in shard.keys]

    def raw(self, number: int) -> tuple[str, dict[str, memoryview]]:
        """The key and the encoded members of a sample; the next call overwrites the members.

        Raises: UserError when the tar holds something else at the sample's offset.
        """
        n = bisect.bisect_right(self._ends, number)
        i = number - (self._ends[n - 1] if n else 0)
        shard = self.shards[n]
        start, places = shard.offsets[i], [*shards.members(shard, i)]
        length = places[-1][1] + shards.BLOCK + places[-1][2] - start
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        data = memoryview(self._buffer)[:length]
        if os.preadv(self._file(n), [data], start) != length:
            raise UserError(f"{self.folder / shard.name}: ends within sample {shard.keys[i]!r}; {REPAIR}")
        out = {}
        for member, (name, at, size) in zip(shards.MEMBERS, places, strict=True):
            begin = at - start + shards.BLOCK
            if not self._buffer.startswith(name.encode() + b"\0", at - start):  # a tar's header begins with the name
                actual = bytes(data[at - start : at - start + 100]).rstrip(b"\0")
                raise UserError(
                    f"{self.folder / shard.name}, offset {at}: holds {actual[:40]!r}, "
                    f"but index.json says {name!r}; {REPAIR}"
                )
            out[member] = data[begin : begin + size]
        return shard.keys[i], out

    def fields(self, number: int) -> Iterator[tuple[str, Any]]:
        """The `fields` of a sample; use them before the next sample is read."""
        key, members = self.raw(number)
        return fields(members, key)

    def __getitem__(self, number: int) -> Decoded:
        key, members = self.raw(number)
        return decode(members, key)

    def _file(self, n: int) -> int:
        if n not in self._files and len(self._files) >= OPEN:
            self._files.pop(next(iter(self._files))).close()  # the one that was opened first
        if n not in self._files:
            self._files[n] = (self.folder / self.shards[n].name).open("rb", buffering=0)
        return self._files[n].fileno()


class Loader(Batches):
    """Batches of about `batch` samples each, in random order; a run resumes exactly with any number of workers.

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
    ) -> None:
        self.steps = steps(len(samples), batch, ranks, str(samples.folder))
        self.identity = {"seed": seed, "batch": batch, "ranks": ranks, "samples": len(samples)}
        self._batches = _Numbered(samples, seed, self.steps, rank, ranks)
        self._workers, self._pin = workers, pin

    def numbers(self) -> Iterator[int]:
        """The numbers of the batches to read, from `step` on."""
        return itertools.count(self.step)

    def loader(self) -> "DataLoader":
        """See `Batches`."""
        from torch.utils.data import DataLoader

        batches: Any = self._batches  # a map-style dataset, but endless
        return DataLoader(
            batches,
            batch_size=None,
            sampler=_From(self.numbers),
            num_workers=self._workers,
            collate_fn=as_is,
            pin_memory=self._pin,
            worker_init_fn=single_thread,
        )


class _From:
    """The numbers of batches, in the form of a sampler for DataLoader."""

    def __init__(self, numbers: Callable[[], Iterator[int]]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return self.numbers()


class _Numbered:
    """A map-style dataset whose item `step` is the batch of that step."""

    def __init__(self, samples: Samples, seed: int, steps: int, rank: int, ranks: int) -> None:
        self.samples, self.seed, self.steps, self.rank, self.ranks = samples, seed, steps, rank, ranks
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, k = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, order(len(self.samples), self.seed, epoch))
        start, stop = piece(len(self.samples), self.steps * self.ranks, k * self.ranks + self.rank)
        return collate((self.samples.fields(int(n)) for n in self._order[1][start:stop]), stop - start)
