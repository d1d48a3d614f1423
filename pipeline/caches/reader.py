"""HDF5 caches: immutable files of rows, each row with its content's digest and its inputs', sorted by key.

A cache `images.h5` and its parts `images.parts/000001.h5` have the same shape:
  key S88 [N], one dataset a column, digest u1 [N,16] of the row's content, inputs u1 [N,P,16] of what it was made from;
  rejects/{key,reason,inputs} for the inputs that gave no row; attributes `provenance` (JSON) and `schema`.
Fletcher32 guards every chunk. HDF5 cannot guard values of any length (bytes, text) that way: there `digest` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from pipeline.caches import hdf5
from pipeline.caches.failures import cache_error, opening_error
from pipeline.caches.schema import Row
from pipeline.errors import UserError
from pipeline.hashing import digest, digest_all

CHUNKS = 1 << 18  # bytes of chunks kept of each dataset: some neighbouring rows; random ones gain nothing
VARYING = 64  # values of any length read at once
DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError)  # what it looks like to HDF5
METADATA = 1 << 20  # bytes that HDF5 keeps of a file's own structures; it would take 32 times as much


class Entry(NamedTuple):
    """Where a key's row lies and what it was made from; a reject has row -1 and a reason."""

    file: int
    row: int
    inputs: bytes
    digest: bytes
    reason: str = ""


class Cache:
    """A cache or part file opened for reading; use it as a context manager.

    Raises: UserError when the file is not a readable cache of this schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            hdf5.plain(path)
            self.h5 = h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNKS)
            config = self.h5.id.get_mdc_config()
            config.set_initial_size, config.initial_size = True, METADATA
            config.min_size, config.max_size = METADATA // 4, METADATA
            self.h5.id.set_mdc_config(config)
            self.provenance, self.columns = hdf5.provenance(self.h5)
        except DAMAGE as e:
            if hasattr(self, "h5"):
                self.h5.close()
            raise opening_error(path, e) from e
        self._rows: dict[str, int] | None = None
        self._datasets: dict[str, h5py.Dataset] = {}  # looking one up costs as much as reading a row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.h5.close()

    def keys(self) -> list[str]:
        """All keys, in the file's order."""
        return _strings(self.key_array())

    def key_array(self) -> np.ndarray:
        """`keys` as they lie in the file: S88 [N]."""
        return self._read("key")

    def __len__(self) -> int:
        """How many rows there are."""
        return self.length("key")

    def length(self, name: str) -> int:
        """Rows of one dataset."""
        return len(self.dataset(name))

    @property
    def width(self) -> int:
        """How many inputs a row has."""
        return int(self.dataset("inputs").shape[1])

    def entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of every row and reject; `number` is put in as the entry's file."""
        return self.row_entries(0, len(self), number) | self.reject_entries(number)

    def row_entries(self, start: int, stop: int, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of some rows."""
        some = slice(start, stop)
        found = zip(
            _strings(self._read("key", some)),
            range(start, stop),
            _digests(self._read("inputs", some)),
            _digests(self._read("digest", some)),
            strict=True,
        )
        return {key: Entry(number, row, made, content) for key, row, made, content in found}

    def digests(self) -> dict[str, bytes]:
        """Key -> digest of every row: all that a stage has to know of what it reads."""
        return dict(zip(self.keys(), _digests(self._read("digest")), strict=True))

    def rows_digest(self) -> str:
        """`file_digest` of the rows, noted when the file was written."""
        try:
            noted = self.h5.attrs.get("rows")
            return hdf5.text(noted) if noted is not None else file_digest(self.entries())
        except DAMAGE as e:
            raise cache_error(self.path, e) from e

    def reject_entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of the rejects. Raises: UserError when they are not what was written."""
        found = [
            *zip(
                _strings(self._read("rejects/key")), self.reasons(), _digests(self._read("rejects/inputs")), strict=True
            )
        ]
        if self.h5.attrs.get("rejects") not in (None, rejects_digest(found).encode()):
            raise cache_error(self.path, ValueError("not the digest it should have"), "rejects")
        return {key: Entry(number, -1, made, b"", reason) for key, reason, made in found}

    def reasons(self) -> list[str]:
        """Why each of the rejects is one."""
        return list(self._read("rejects/reason", text=True))

    def rows(self, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
        """The rows of `keys` with the datasets `columns`.

        Raises: UserError for an unknown key or dataset, or a row that is damaged.
        """
        if self._rows is None:
            self._rows = {key: i for i, key in enumerate(self.keys())}
        unknown = set(columns) - set(self.columns)
        if unknown:
            raise UserError(f"{self.path}: no dataset {sorted(unknown)}; it holds {sorted(self.columns)}")
        # Without a checksum of their own, bytes are good only if the whole row has the digest it should have.
        guarded = any(self.columns[name].dtype == "bytes" for name in columns)
        wanted = list(keys)
        unknown_keys = [key for key in wanted if key not in self._rows]
        if unknown_keys:
            raise UserError(f"{self.path}: no key {unknown_keys[0]!r}")
        rows: list[Row] = []
        digests: list[bytes] = []
        for _, start, stop in stretches([(0, self._rows[key]) for key in wanted]):
            blocks = {name: self.block(name, start, stop) for name in (self.columns if guarded else columns)}
            rows += [{name: block[i] for name, block in blocks.items()} for i in range(stop - start)]
            if guarded:
                digests += _digests(self._read("digest", slice(start, stop)))
        for key, row, expected in zip(wanted, rows, digests, strict=False):
            if row_digest(row) != expected:
                raise cache_error(self.path, ValueError(f"key {key!r} does not have its digest"))
        return [{name: row[name] for name in columns} for row in rows]

    def block(self, name: str, start: int, stop: int) -> Any:
        """Rows start..stop of one column: an array, or a list of bytes or str; a bad checksum is a UserError."""
        kind = self.columns[name].dtype
        values = self._read(name, slice(start, stop), text=kind == "text")
        return [v.tobytes() for v in values] if kind == "bytes" else values

    def filters(self, name: str) -> list[Any]:
        """How the chunks of a dataset are packed: two datasets with the same can exchange them as they are."""
        return filters(self.dataset(name))

    def chunk(self, name: str, row: int) -> bytes:
        """The chunk that is row `row` of one column, as it lies in the file; a bad checksum is a UserError."""
        dataset = self.dataset(name)
        try:
            skipped, data = dataset.id.read_direct_chunk((row, *[0] * (dataset.ndim - 1)))
        except DAMAGE as e:
            raise cache_error(self.path, e, name) from e
        if skipped or len(data) < 4 or not checks(data):
            raise cache_error(self.path, ValueError(f"row {row} does not have its checksum"), name)
        return bytes(data)

    def _read(self, name: str, where: slice = slice(None), text: bool = False) -> Any:
        try:
            dataset = self.dataset(name)
            if dataset.dtype.kind != "O":
                return dataset[where]
            return self._varying(dataset.asstr() if text else dataset, range(*where.indices(len(dataset))))
        except DAMAGE as e:
            raise cache_error(self.path, e, name) from e

    def _varying(self, dataset: Any, rows: range) -> list[Any]:
        """Values of any length, a few at a time: all of them may lead to the same place, and be more than the file."""
        values: list[Any] = []
        room = self.path.stat().st_size
        for start in range(rows.start, rows.stop, VARYING):
            some = dataset[start : min(start + VARYING, rows.stop)]
            room -= sum(map(len, some))
            if room < 0:
                raise ValueError("values that are longer than the whole file")
            values += list(some)
        return values

    def dataset(self, name: str) -> h5py.Dataset:
        """A dataset as it lies in the file. Raises: UserError when it is none of ours, or leads out of the file."""
        found = self._datasets.get(name)
        if found is None:
            try:
                found = self._datasets[name] = hdf5.dataset(self.h5, name, self.columns.get(name))
            except DAMAGE as e:
                raise cache_error(self.path, e, name) from e
        return found


def read_rows(path: Path, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
    """The rows of `keys` from the cache file `path`, a dict of the datasets `columns` each."""
    with Cache(path) as cache:
        return cache.rows(keys, columns)


def keys(path: Path) -> list[str]:
    """The keys of a cache file, sorted."""
    with Cache(path) as cache:
        return cache.keys()


def row_digest(row: Mapping[str, Any]) -> bytes:
    """Digest of a row's content, columns in the order of their names."""
    return digest(*(part for name in sorted(row) for part in (name.encode(), _plain(row[name]))))


def file_digest(entries: Mapping[str, Entry]) -> str:
    """Hex digest of all rows of a file, by key."""
    rows = (part for key in sorted(entries) if entries[key].row >= 0 for part in (key.encode(), entries[key].digest))
    return digest_all(rows).hex()


def filters(dataset: h5py.Dataset) -> list[Any]:
    """The shape of a dataset's chunks and the filters that they go through."""
    made = dataset.id.get_create_plist()
    return [dataset.dtype, dataset.chunks, *(made.get_filter(i) for i in range(made.get_nfilters()))]


def checks(data: bytes) -> bool:
    """Whether a packed chunk ends in the Fletcher32 checksum of the rest, as HDF5 makes it."""
    words = np.frombuffer(data[:-4] + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    low, high = words.sum(), (words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum()
    stored = int.from_bytes(data[-4:], "little")
    return [int(low) % 65535, int(high) % 65535] == [(stored & 0xFFFF) % 65535, (stored >> 16) % 65535]


def stretches(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(file, start, stop) of the runs of neighbouring rows among (file, row) places: a run is read as one slice."""
    out: list[tuple[int, int, int]] = []
    for file, row in places:
        if out and out[-1][0] == file and out[-1][2] == row:
            out[-1] = (file, out[-1][1], row + 1)
        else:
            out.append((file, row, row + 1))
    return out


def rejects_digest(rejects: Sequence[tuple[str, str, bytes]]) -> str:
    """Hex digest of (key, reason, inputs) rejects, in their order."""
    return digest(*(part for key, reason, made in rejects for part in (key.encode(), reason.encode(), made))).hex()


def _plain(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()


def _strings(values: np.ndarray) -> list[str]:
    return [v.decode() for v in values.tolist()]


def _digests(values: np.ndarray) -> list[bytes]:
    data, width = values.tobytes(), values[:1].nbytes
    return [data[i : i + width] for i in range(0, len(data), width)] if width else []
