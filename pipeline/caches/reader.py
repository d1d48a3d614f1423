"""Reads a cache: one HDF5 file of rows, or one that lists volumes, which are read as one."""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.caches import volumes
from pipeline.caches.digests import Index, content_columns, find
from pipeline.caches.failures import DamagedError
from pipeline.caches.schema import Entry, Row
from pipeline.caches.volume import OpenVolumes, Volume, stretches
from pipeline.errors import UserError

OPEN = 64  # most volumes open at once, which is half a million rows; HDF5 keeps a few MB of each


class Cache:
    """A cache file with its volumes, or a part, open for reading; use it as a context manager.

    Row i is row i of the datasets that HDF5 shows of the file: the rows of one volume after the other, each sorted by
    key. Volumes are opened by their names, never through the file's virtual datasets, which do not tell a missing one.
    Raises: UserError when a file is missing, damaged, or no cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entry = Volume(path)
        self.provenance, self.columns = self._entry.provenance, self._entry.columns
        try:
            self.listed = volumes.listed(self._entry)
        except UserError:
            self._entry.h5.close()
            raise
        self.files = [volumes.file(path, one.number) for one in self.listed] or [path]
        self._volumes = OpenVolumes(self.files, OPEN, self._opened)
        self._table: tuple[np.ndarray, np.ndarray] | None = (
            None  # keys, sorted, and their rows: of the last volume or all
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._volumes.__exit__()
        self._entry.h5.close()

    def _opened(self, number: int, path: Path) -> Volume:
        """A volume, which must be the one that the file lists."""
        expected = self.listed[number]
        if not path.exists():
            raise _not_listed(path, f"missing, but {self.path.name} lists it", self.path)
        volume = Volume(path)
        with suppress(DamagedError):
            found = len(volume), volume.length("rejects/key"), volume.identity(), volume.columns
            if found == (expected.rows, expected.rejects, expected.digest, self.columns):
                return volume
        volume.h5.close()
        raise _not_listed(path, f"not the one that {self.path.name} lists", self.path)

    def volume(self, number: int) -> Volume:
        """The volume `number` of `files`, counted from 0. Raises: UserError when it is missing, damaged or another."""
        return self._volumes[number] if self.listed else self._entry

    def volumes(self) -> Iterator[Volume]:
        """Each volume in turn; a plain file is its own and only one."""
        return map(self.volume, range(len(self.files)))

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each volume."""
        return [0, *itertools.accumulate(one.rows for one in self.listed[:-1])]

    @property
    def content(self) -> list[str]:
        """The columns that a row's digest is of: all but labels."""
        return content_columns(self.columns)

    def keys(self) -> list[str]:
        """All keys, in the order of the rows."""
        return [key for volume in self.volumes() for key in volume.keys()]  # noqa: SIM118

    def key_array(self) -> np.ndarray:
        """All keys as an array S88 [N]."""
        return np.concatenate([volume.key_array() for volume in self.volumes()])

    def __len__(self) -> int:
        """The number of rows."""
        return self.length("key")

    def length(self, name: str) -> int:
        """The number of rows of one dataset."""
        if not self.listed:
            return self._entry.length(name)
        return sum(one.rejects if name.startswith("rejects/") else one.rows for one in self.listed)

    @property
    def width(self) -> int:
        """The number of inputs of a row."""
        return self.volume(0).width

    def entries(self) -> dict[str, Entry]:
        """Key -> Entry of every row and reject."""
        if not self.listed:
            return self._entry.entries()
        found: dict[str, Entry] = {}
        for start, volume in zip(self._starts, self.volumes(), strict=True):
            entries = volume.entries().items()
            found |= {key: entry._replace(row=entry.row + start) if entry.row >= 0 else entry for key, entry in entries}
        return found

    def index(self) -> Index:
        """The digest of every row: all that a stage needs to know about its parent."""
        return Index.union([volume.index() for volume in self.volumes()])

    def rows_digest(self) -> str:
        """The `file_digest` of all rows: the same however they are spread over volumes."""
        return self._entry.rows_digest()

    def rejects_digest(self) -> str:
        """The digest of all rejects, as it was stored; "" where none was."""
        return self._entry.rejects_digest()

    def reasons(self) -> list[str]:
        """The reason of each reject."""
        return [reason for volume in self.volumes() for reason in volume.reasons()]

    def rows(self, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
        """The rows of `keys` with the datasets `columns`.

        Raises: UserError when a key or a dataset is unknown, or a row is damaged.
        """
        unknown = set(columns) - set(self.columns)
        if unknown:
            raise UserError(f"{self.path}: no dataset {sorted(unknown)}; expected one of {sorted(self.columns)}")
        wanted = list(keys)
        rows: list[Row] = []
        places = ((*self._place(row), key) for row, key in zip(self._find(wanted), wanted, strict=True))
        for number, group in itertools.groupby(places, key=lambda place: place[0]):
            rows += self.volume(number).take([(key, row) for _, row, key in group], columns)
        return rows

    def _find(self, keys: Sequence[str]) -> list[int]:
        """The rows of these keys. Raises: UserError when one is unknown.

        The keys of other volumes than the last one are read when one of them is wanted: a run that has added rows reads
        only these.
        """
        wanted = np.array([key.encode() for key in keys] or np.empty(0, "S1"))
        if self._table is None:
            self._table = _table(self.volume(len(self.files) - 1).key_array(), self._starts[-1])
        at = find(self._table[0], wanted)
        if (at < 0).any() and len(self._table[0]) < len(self):
            self._table = _table(self.key_array(), 0)
            at = find(self._table[0], wanted)
        if (at < 0).any():
            raise UserError(f"{self.path}: no key {keys[int(np.argmin(at))]!r}")
        rows: list[int] = self._table[1][at].tolist()
        return rows

    def _place(self, row: int) -> tuple[int, int]:
        """The volume of a row, and the row there."""
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def block(self, name: str, start: int, stop: int) -> Any:
        """Rows start..stop of one column: an array, or a list of bytes or str. Raises: UserError as `Volume.block`."""
        blocks = []
        for number, first in enumerate(self._starts):
            last = self._starts[number + 1] if number + 1 < len(self._starts) else stop
            if first < stop and start < last:
                blocks.append(self.volume(number).block(name, max(start, first) - first, min(stop, last) - first))
        return joined(blocks)

    def gather(self, name: str, rows: Sequence[int]) -> Any:
        """These rows of one column, in this order; neighbours are read together. Raises: UserError as `block`."""
        return joined([self.block(name, start, stop) for _, start, stop in stretches((0, row) for row in rows)])


def _table(names: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys S88 [N] of the rows from `first` on, sorted, and the row of each."""
    order = np.argsort(names, kind="stable")
    return names[order], order + first


def joined(blocks: Sequence[Any]) -> Any:
    """Blocks of one column, of one or several volumes, as one."""
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if isinstance(blocks[0], np.ndarray) else list(itertools.chain.from_iterable(blocks))


def _not_listed(path: Path, what: str, entry: Path) -> DamagedError:
    return DamagedError(
        f"{path}: {what}; if a run has just changed {entry.name}, run again, "
        "else `hypernst verify --repair` drops what is lost, then run the stage again"
    )


def read_rows(path: Path, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
    """The rows of `keys` in the cache file `path`, each a dict of the datasets `columns`. Raises: as `Cache.rows`."""
    with Cache(path) as cache:
        return cache.rows(keys, columns)


def keys(path: Path) -> list[str]:
    """The keys of a cache file, sorted. Raises: as `Cache`."""
    with Cache(path) as cache:
        return sorted(cache.keys())
