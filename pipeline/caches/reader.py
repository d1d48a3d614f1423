"""Reads HDF5 caches: immutable files of rows, sorted by key. Each row has the digests of its content and its inputs.

A cache `images.h5` and its parts `images.parts/000001.h5` have the same layout:
  key S88 [N], one dataset per column, digest u1 [N, 16] of the row's content, inputs u1 [N, P, 16] of its inputs;
  rejects/{key,reason,inputs} for the inputs that gave no row; attributes `provenance` (JSON) and `schema`.
Fletcher32 guards every chunk. HDF5 cannot guard values of variable length (bytes, text) that way; `digest` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from pipeline.caches import hdf5
from pipeline.caches.failures import cache_error, opening_error
from pipeline.caches.schema import TEXT, Column, Row
from pipeline.errors import UserError
from pipeline.hashing import digest, digest_all

CHUNKS = 1 << 18  # bytes of the chunk cache per dataset: enough for neighbouring rows
VARYING = 64  # values of variable length read at a time
DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError)  # the errors of HDF5 for a damaged file
METADATA = 1 << 20  # bytes of HDF5's metadata cache; its default is 32 times as large


class Entry(NamedTuple):
    """Where the row of a key lies, and the digests of its inputs; a reject has row -1 and a reason."""

    file: int
    row: int
    inputs: bytes
    digest: bytes
    reason: str = ""


class Cache:
    """A cache file or a part of one, open for reading; use it as a context manager.

    Raises: UserError when the file is missing, damaged, or no cache.
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
        self._datasets: dict[str, h5py.Dataset] = {}  # looking up a dataset costs as much as reading a row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.h5.close()

    @property
    def content(self) -> list[str]:
        """The columns that a row's digest is of: all but labels."""
        return content_columns(self.columns)

    def keys(self) -> list[str]:
        """All keys, in the order of the file."""
        return _strings(self.key_array())

    def key_array(self) -> np.ndarray:
        """All keys as an array S88 [N]."""
        return self._read("key")

    def __len__(self) -> int:
        """The number of rows."""
        return self.length("key")

    def length(self, name: str) -> int:
        """The number of rows of one dataset."""
        return len(self.dataset(name))

    @property
    def width(self) -> int:
        """The number of inputs of a row."""
        return int(self.dataset("inputs").shape[1])

    def entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of every row and reject, with `number` as the file of each entry."""
        return self.row_entries(0, len(self), number) | self.reject_entries(number)

    def row_entries(self, start: int, stop: int, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of the rows start..stop."""
        part = slice(start, stop)
        rows = zip(
            _strings(self._read("key", part)),
            range(start, stop),
            _digests(self._read("inputs", part)),
            _digests(self._read("digest", part)),
            strict=True,
        )
        return {key: Entry(number, row, inputs, content) for key, row, inputs, content in rows}

    def digests(self) -> dict[str, bytes]:
        """Key -> digest of every row: all that a stage needs to know about its parent."""
        return dict(zip(self.keys(), _digests(self._read("digest")), strict=True))

    def rows_digest(self) -> str:
        """The `file_digest` of the rows, stored when the file was written; computed when it is not stored."""
        try:
            stored = self.h5.attrs.get("rows")
            return hdf5.text(stored) if stored is not None else file_digest(self.entries())
        except DAMAGE as e:
            raise cache_error(self.path, e) from e

    def reject_entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of the rejects. Raises: UserError when they do not have the digest that was stored."""
        rejects = [
            *zip(
                _strings(self._read("rejects/key")), self.reasons(), _digests(self._read("rejects/inputs")), strict=True
            )
        ]
        if self.h5.attrs.get("rejects") not in (None, rejects_digest(rejects).encode()):
            raise cache_error(self.path, ValueError("not the digest it should have"), "rejects")
        return {key: Entry(number, -1, inputs, b"", reason) for key, reason, inputs in rejects}

    def reasons(self) -> list[str]:
        """The reason of each reject."""
        return list(self._read("rejects/reason", text=True))

    def rows(self, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
        """The rows of `keys` with the datasets `columns`.

        Raises: UserError when a key or a dataset is unknown, or a row is damaged.
        """
        if self._rows is None:
            self._rows = {key: i for i, key in enumerate(self.keys())}
        unknown = set(columns) - set(self.columns)
        if unknown:
            raise UserError(f"{self.path}: no dataset {sorted(unknown)}; expected one of {sorted(self.columns)}")
        # Bytes have no checksum of their own: they are sound only if the whole row has its digest.
        with_digest = any(self.columns[name].dtype == "bytes" for name in columns)
        read = [*dict.fromkeys([*columns, *self.content])] if with_digest else columns
        wanted = list(keys)
        unknown_keys = [key for key in wanted if key not in self._rows]
        if unknown_keys:
            raise UserError(f"{self.path}: no key {unknown_keys[0]!r}")
        rows: list[Row] = []
        digests: list[bytes] = []
        for _, start, stop in stretches([(0, self._rows[key]) for key in wanted]):
            blocks = {name: self.block(name, start, stop) for name in read}
            rows += [{name: block[i] for name, block in blocks.items()} for i in range(stop - start)]
            if with_digest:
                digests += _digests(self._read("digest", slice(start, stop)))
        for key, row, expected in zip(wanted, rows, digests, strict=False):
            if row_digest({name: row[name] for name in self.content}) != expected:
                raise cache_error(self.path, ValueError(f"key {key!r} does not have its digest"))
        return [{name: row[name] for name in columns} for row in rows]

    def block(self, name: str, start: int, stop: int) -> Any:
        """Rows start..stop of one column: an array, or a list of bytes or str.

        Raises: UserError when a checksum does not fit.
        """
        kind = self.columns[name].dtype
        values = self._read(name, slice(start, stop), text=kind in TEXT)
        return [v.tobytes() for v in values] if kind == "bytes" else values

    def filters(self, name: str) -> list[Any]:
        """How the chunks of a dataset are packed; datasets with equal filters can exchange chunks unchanged."""
        return filters(self.dataset(name))

    def chunk(self, name: str, row: int) -> bytes:
        """The packed chunk that holds row `row` of one column. Raises: UserError when its checksum does not fit."""
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
        """Values of variable length, read in small blocks, as their sum may be larger than the file."""
        values: list[Any] = []
        remaining = self.path.stat().st_size
        for start in range(rows.start, rows.stop, VARYING):
            block = dataset[start : min(start + VARYING, rows.stop)]
            remaining -= sum(map(len, block))
            if remaining < 0:
                raise ValueError("values that are longer than the whole file")
            values += list(block)
        return values

    def dataset(self, name: str) -> h5py.Dataset:
        """The HDF5 dataset `name`. Raises: UserError when no cache has it, or it lies outside the file."""
        dataset = self._datasets.get(name)
        if dataset is None:
            try:
                dataset = self._datasets[name] = hdf5.dataset(self.h5, name, self.columns.get(name))
            except DAMAGE as e:
                raise cache_error(self.path, e, name) from e
        return dataset


def read_rows(path: Path, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
    """The rows of `keys` in the cache file `path`, each a dict of the datasets `columns`. Raises: as `Cache.rows`."""
    with Cache(path) as cache:
        return cache.rows(keys, columns)


def keys(path: Path) -> list[str]:
    """The keys of a cache file, sorted. Raises: as `Cache`."""
    with Cache(path) as cache:
        return cache.keys()


def content_columns(columns: Mapping[str, Column]) -> list[str]:
    """The columns that a row's digest is of: all but labels."""
    return [name for name, column in columns.items() if column.dtype != "label"]


def row_digest(row: Mapping[str, Any]) -> bytes:
    """The digest of a row's content without its labels, columns sorted by name."""
    return digest(*(part for name in sorted(row) for part in (name.encode(), _plain(row[name]))))


def file_digest(entries: Mapping[str, Entry]) -> str:
    """The hex digest of all rows of a file, sorted by key."""
    rows = (part for key in sorted(entries) if entries[key].row >= 0 for part in (key.encode(), entries[key].digest))
    return digest_all(rows).hex()


def filters(dataset: h5py.Dataset) -> list[Any]:
    """The dtype, the chunk shape and the filters of a dataset."""
    properties = dataset.id.get_create_plist()
    return [dataset.dtype, dataset.chunks, *(properties.get_filter(i) for i in range(properties.get_nfilters()))]


def checks(data: bytes) -> bool:
    """Whether a packed chunk ends in the Fletcher32 checksum of the rest, as HDF5 computes it."""
    words = np.frombuffer(data[:-4] + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    low, high = words.sum(), (words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum()
    stored = int.from_bytes(data[-4:], "little")
    return [int(low) % 65535, int(high) % 65535] == [(stored & 0xFFFF) % 65535, (stored >> 16) % 65535]


def stretches(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The runs of neighbouring rows among (file, row) places, as (file, start, stop): each run is read as one slice."""
    out: list[tuple[int, int, int]] = []
    for file, row in places:
        if out and out[-1][0] == file and out[-1][2] == row:
            out[-1] = (file, out[-1][1], row + 1)
        else:
            out.append((file, row, row + 1))
    return out


def labels_digest(labels: Iterable[str]) -> str:
    """The hex digest of a column of labels."""
    return digest_all(label.encode() for label in labels).hex()


def rejects_digest(rejects: Sequence[tuple[str, str, bytes]]) -> str:
    """The hex digest of (key, reason, inputs) rejects, in this order."""
    return digest(*(part for key, reason, inputs in rejects for part in (key.encode(), reason.encode(), inputs))).hex()


def _plain(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()


def _strings(values: np.ndarray) -> list[str]:
    return [v.decode() for v in values.tolist()]


def _digests(values: np.ndarray) -> list[bytes]:
    data, width = values.tobytes(), values[:1].nbytes
    return [data[i : i + width] for i in range(0, len(data), width)] if width else []
