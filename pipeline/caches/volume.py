"""Reads one HDF5 file of rows, sorted by key. Each row has the digests of its content and its inputs.

A cache of one file `images.h5`, its volumes `images.volumes/000001.h5` where it has grown, and its parts
`images.parts/000001.h5` have the same layout:
  key S88 [N], one dataset per column, digest u1 [N, 16] of the row's content, inputs u1 [N, P, 16] of its inputs;
  rejects/{key,reason,inputs} for the inputs that gave no row; attributes `provenance` (JSON) and `schema`.
Fletcher32 guards every chunk. HDF5 cannot guard values of variable length (bytes, text) that way; `digest` does.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from pipeline.caches import hdf5
from pipeline.caches.digests import Index, checks, content_columns, file_digest, rejects_digest, row_digest
from pipeline.caches.failures import cache_error, opening_error
from pipeline.caches.schema import TEXT, Entry, Row
from pipeline.hashing import DIGEST, digest

CHUNKS = 1 << 18  # bytes of the chunk cache per dataset: enough for neighbouring rows
VARYING = 64  # values of variable length read at a time
DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError)  # the errors of HDF5 for a damaged file
METADATA = 1 << 20  # bytes of HDF5's metadata cache; its default is 32 times as large


class Head(NamedTuple):
    """What a file of rows says of them: the digest of each row, those of the inputs of rows and rejects, the rejects.

    `identity` is the digest of it all but the inputs.
    """

    rows: Index
    inputs: Index
    rejects: dict[str, Entry]
    identity: bytes

    def __len__(self) -> int:
        """The number of rows and rejects."""
        return len(self.inputs)


class Volume:
    """One HDF5 file of rows, open for reading; use it as a context manager.

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
        return self._keys("key")

    def _keys(self, name: str, part: slice = slice(None)) -> np.ndarray:
        """Keys that can be decoded. Raises: UserError when one is no text."""
        keys = np.ascontiguousarray(self._read(name, part))
        try:
            if keys.dtype.kind != "S":
                raise ValueError("its values are no text")
            if keys.nbytes and keys.view(np.uint8).max() >= 128:
                _strings(keys)
        except ValueError as error:
            raise cache_error(self.path, error, name) from error
        return keys

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
            _strings(self._keys("key", part)),
            range(start, stop),
            _digests(self._read("inputs", part)),
            _digests(self._read("digest", part)),
            strict=True,
        )
        return {key: Entry(number, row, inputs, content) for key, row, inputs, content in rows}

    def index(self) -> Index:
        """The digest of every row."""
        return Index(self.key_array(), self._read("digest"))

    def head(self, number: int = 0) -> Head:
        """What the file says of its rows and rejects, with `number` as the file of the latter's entries."""
        rejects = self.reject_entries(number) if self.length("rejects/key") else {}
        names = self.key_array()
        inputs = Index(names, self._read("inputs").reshape(len(names), self.width * DIGEST))
        refused = Index.of({key: entry.inputs for key, entry in rejects.items()}, self.width)
        inputs = Index.union([inputs, refused]) if rejects else inputs
        return Head(Index(names, self._read("digest")), inputs, rejects, self.identity())

    def rows_digest(self) -> str:
        """The `file_digest` of the rows, stored when the file was written; computed when it is not stored."""
        try:
            stored = self.h5.attrs.get("rows")
            return hdf5.text(stored) if stored is not None else file_digest(self.entries())
        except DAMAGE as e:
            raise cache_error(self.path, e) from e

    def rejects_digest(self) -> str:
        """The digest of the rejects, stored when the file was written; "" where none was stored."""
        try:
            return hdf5.text(self.h5.attrs.get("rejects", ""))
        except DAMAGE as e:
            raise cache_error(self.path, e) from e

    def identity(self) -> bytes:
        """The digest of the rows and the rejects, as they were when the file was written."""
        return digest(self.rows_digest().encode(), self.rejects_digest().encode())

    def reject_entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of the rejects. Raises: UserError when they do not have the digest that was stored."""
        rejects = [
            *zip(
                _strings(self._keys("rejects/key")), self.reasons(), _digests(self._read("rejects/inputs")), strict=True
            )
        ]
        stored = self.h5.attrs.get("rejects", b"")
        if not isinstance(stored, bytes) or stored not in (b"", rejects_digest(rejects).encode()):
            raise cache_error(self.path, ValueError("not the digest it should have"), "rejects")
        return {key: Entry(number, -1, inputs, b"", reason) for key, reason, inputs in rejects}

    def reasons(self) -> list[str]:
        """The reason of each reject."""
        return list(self._read("rejects/reason", text=True))

    def take(self, wanted: Sequence[tuple[str, int]], columns: Sequence[str]) -> list[Row]:
        """The rows at these (key, row) places, with the datasets `columns`. Raises: UserError when one is damaged."""
        # Bytes have no checksum of their own: they are sound only if the whole row has its digest.
        with_digest = any(self.columns[name].dtype == "bytes" for name in columns)
        read = [*dict.fromkeys([*columns, *self.content])] if with_digest else columns
        rows: list[Row] = []
        digests: list[bytes] = []
        for _, start, stop in stretches((0, row) for _, row in wanted):
            blocks = {name: self.block(name, start, stop) for name in read}
            rows += [{name: block[i] for name, block in blocks.items()} for i in range(stop - start)]
            if with_digest:
                digests += _digests(self._read("digest", slice(start, stop)))
        for (key, _), row, expected in zip(wanted, rows, digests, strict=False):
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


def filters(dataset: h5py.Dataset) -> list[Any]:
    """The dtype, the chunk shape and the filters of a dataset."""
    properties = dataset.id.get_create_plist()
    return [dataset.dtype, dataset.chunks, *(properties.get_filter(i) for i in range(properties.get_nfilters()))]


def stretches(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The runs of neighbouring rows among (file, row) places, as (file, start, stop): each run is read as one slice."""
    out: list[tuple[int, int, int]] = []
    for file, row in places:
        if out and out[-1][0] == file and out[-1][2] == row:
            out[-1] = (file, out[-1][1], row + 1)
        else:
            out.append((file, row, row + 1))
    return out


def _strings(values: np.ndarray) -> list[str]:
    return [v.decode() for v in values.tolist()]


def _digests(values: np.ndarray) -> list[bytes]:
    data, width = values.tobytes(), values[:1].nbytes
    return [data[i : i + width] for i in range(0, len(data), width)] if width else []


class OpenVolumes:
    """Volumes by their number among `files`, of which only `most` are open at once: a long run leaves thousands."""

    def __init__(self, files: Sequence[Path], most: int, opened: Callable[[int, Path], Volume] | None = None) -> None:
        self._files, self._most = files, most
        self._opened = opened or (lambda _, path: Volume(path))
        self._open: dict[int, Volume] = {}

    def __getitem__(self, number: int) -> Volume:
        if number not in self._open:
            if len(self._open) >= self._most:
                self._open.pop(next(iter(self._open))).h5.close()
            self._open[number] = self._opened(number, self._files[number])
        self._open[number] = self._open.pop(number)  # the first one is closed first: the least recently used
        return self._open[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for volume in self._open.values():
            volume.h5.close()
        self._open.clear()
