"""Writes HDF5 caches: part files while a stage runs, then one compacted file. `reader` reads both."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from pipeline import SCHEMA
from pipeline.caches.output import Output, new_file
from pipeline.caches.reader import (
    Cache,
    Entry,
    content_columns,
    file_digest,
    filters,
    labels_digest,
    rejects_digest,
    row_digest,
    stretches,
)
from pipeline.caches.schema import TEXT, VARYING, Column, Row
from pipeline.files import replacing
from pipeline.sources.keys import KEY_LENGTH

KEY = Column(f"S{KEY_LENGTH}")
REASON = Column("text")
CHUNK = 1 << 16  # bytes of a chunk; larger rows have one chunk per row
BLOCK = 1 << 21  # bytes copied at a time while compacting
OVERHEAD = 1 << 14  # bytes that Python's objects add to a row, rounded up
OPEN = 4  # most files open while compacting; HDF5 keeps a few MB of each


@dataclass
class PendingRows:
    """Rows and rejects that will be written to one file, in the order in which they were added."""

    keys: list[str]
    rows: list[Row]
    inputs: list[bytes]
    rejects: list[tuple[str, str, bytes]]  # key, reason, inputs
    nbytes: int = 0  # memory of the rows, estimated

    @classmethod
    def empty(cls) -> "PendingRows":
        """No rows and no rejects."""
        return cls([], [], [], [])

    def add(self, key: str, row: Row, inputs: bytes) -> None:
        """Add a row."""
        self.keys.append(key)
        self.rows.append(row)
        self.inputs.append(inputs)
        self.nbytes += OVERHEAD + sum(len(v) if isinstance(v, bytes | str) else v.nbytes for v in row.values())

    def extend(self, other: "PendingRows") -> None:
        """Add all rows and rejects of another batch."""
        for mine, more in (
            (self.keys, other.keys),
            (self.rows, other.rows),
            (self.inputs, other.inputs),
            (self.rejects, other.rejects),
        ):
            mine += more  # type: ignore[operator]
        self.nbytes += other.nbytes

    def __len__(self) -> int:
        return len(self.keys) + len(self.rejects)


def folder(path: Path) -> Path:
    """The folder of a cache file's parts, until they are compacted."""
    return path.with_suffix(".parts")


def listed(path: Path) -> list[Path]:
    """The part files of a cache file, oldest first."""
    return sorted(p for p in folder(path).glob("*.h5") if p.stem.isdigit())


def next_number(path: Path) -> int:
    """The number of the next part of a cache file."""
    return max((int(p.stem) for p in listed(path)), default=0) + 1


def write_part(
    path: Path,
    batch: PendingRows,
    columns: Mapping[str, Column],
    parents: int,
    provenance: dict,
    number: int | None = None,
) -> Path:
    """Write `batch` as part `number` (default: the next one) of the cache file `path`, whole or not at all."""
    part = folder(path) / f"{number or next_number(path):06d}.h5"
    write_file(part, batch, columns, parents, provenance)
    return part


def write_file(path: Path, batch: PendingRows, columns: Mapping[str, Column], parents: int, provenance: dict) -> None:
    """Write `batch` as the file `path`, whole or not at all."""
    with replacing(path) as temporary, new_file(temporary) as (f, output):
        _create(f, columns, len(batch.keys), parents, provenance)
        f["key"][:] = np.array([k.encode() for k in batch.keys], KEY.dtype)
        f["inputs"][:] = _undigest(batch.inputs, parents)
        content = content_columns(columns)
        f["digest"][:] = _undigest([row_digest({name: r[name] for name in content}) for r in batch.rows])
        for name in columns:
            _put(f[name], 0, [r[name] for r in batch.rows])
            output.check()
            if name not in content:
                f[name].attrs["digest"] = np.bytes_(labels_digest(r[name] for r in batch.rows))
        _put_rejects(f, batch.rejects, parents)


def compact(
    path: Path,
    files: Sequence[Path],
    entries: Mapping[str, Entry],
    columns: Mapping[str, Column],
    parents: int,
    provenance: dict,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write `entries`, which are rows and rejects of `files`, to the cache file `path`, sorted by key.

    `labels` are the new labels of renamed rows, by key.
    """
    order = [key for key in sorted(entries) if entries[key].row >= 0]
    rejects = [(key, e.reason, e.inputs) for key, e in sorted(entries.items()) if e.row < 0]
    with (
        replacing(path) as temporary,
        new_file(temporary) as (f, output),
        _Files(files) as opened,
    ):
        _create(f, columns, len(order), parents, provenance)
        f["key"][:] = np.fromiter((key.encode() for key in order), KEY.dtype, len(order))
        f["inputs"][:] = _undigest([entries[key].inputs for key in order], parents)
        f["digest"][:] = _undigest([entries[key].digest for key in order])
        _put_rejects(f, rejects, parents)
        f.attrs["rows"] = np.bytes_(file_digest(entries))
        for name, column in columns.items():
            if f[name].compression and f[name].chunks[0] == 1:
                _copy(f[name], name, [entries[key][:2] for key in order], opened, output)
                continue
            # Whole chunks at a time, so that the bytes do not depend on how the rows lay in the parts.
            chunk = f[name].chunks[0]
            step = max(1, BLOCK // _row_bytes(column) // chunk) * chunk if column.dtype not in VARYING else 64
            for start in range(0, len(order), step):
                places = [entries[key][:2] for key in order[start : start + step]]  # file, row
                blocks = [opened[number].block(name, *rows) for number, *rows in stretches(places)]
                _put(f[name], start, _joined(blocks))
                output.check()
            if column.dtype == "label":
                _relabel(f[name], order, labels or {})


def _relabel(dataset: h5py.Dataset, order: Sequence[str], labels: Mapping[str, str]) -> None:
    """Write the labels of renamed rows, and the digest of all."""
    for i, key in enumerate(order):
        if key in labels:
            dataset[i] = labels[key]
    dataset.attrs["digest"] = np.bytes_(labels_digest(dataset.asstr()[:]))


def _copy(
    dataset: h5py.Dataset, name: str, places: Sequence[tuple[int, int]], opened: "_Files", output: Output
) -> None:
    """Fill `dataset` with the rows at (file, row) `places`; chunks are copied packed where the filters are equal."""
    packing, rest, same_filters = filters(dataset), [0] * (dataset.ndim - 1), dict[int, bool]()
    for i, (number, row) in enumerate(places):
        cache = opened[number]
        if number not in same_filters:
            same_filters[number] = cache.filters(name) == packing
        if same_filters[number]:
            dataset.id.write_direct_chunk((i, *rest), cache.chunk(name, row))
        else:
            dataset[i] = cache.block(name, row, row + 1)[0]
        output.check()


def _joined(blocks: Sequence[Any]) -> Any:
    arrays = isinstance(blocks[0], np.ndarray)
    return np.concatenate(blocks) if arrays else list(itertools.chain.from_iterable(blocks))


class _Files:
    """Caches by their number among `files`; only OPEN are open at a time, as a long run leaves thousands of parts."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._open: dict[int, Cache] = {}

    def __getitem__(self, number: int) -> Cache:
        if number not in self._open:
            if len(self._open) >= OPEN:
                self._open.pop(next(iter(self._open))).h5.close()
            self._open[number] = Cache(self._files[number])
        self._open[number] = self._open.pop(number)  # the first one is closed first: the least recently used
        return self._open[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for cache in self._open.values():
            cache.h5.close()


def _create(f: h5py.File, columns: Mapping[str, Column], rows: int, parents: int, provenance: dict) -> None:
    f.attrs["provenance"] = np.bytes_(json.dumps(provenance, sort_keys=True))  # fixed length: only this has a checksum
    f.attrs["schema"] = SCHEMA
    fixed = {"key": KEY, "inputs": Column("u1", (parents, 16)), "digest": Column("u1", (16,))}
    for name, column in {**columns, **fixed}.items():
        _dataset(f, name, column, rows)


def _put_rejects(f: h5py.File, rejects: Sequence[tuple[str, str, bytes]], parents: int) -> None:
    for name, column in {"key": KEY, "reason": REASON, "inputs": Column("u1", (parents, 16))}.items():
        _dataset(f, f"rejects/{name}", column, len(rejects))
    f["rejects/key"][:] = np.array([key.encode() for key, _, _ in rejects], KEY.dtype)
    rejects = [(key, reason.replace("\0", " "), inputs) for key, reason, inputs in rejects]
    _put(f["rejects/reason"], 0, [reason for _, reason, _ in rejects])
    f["rejects/inputs"][:] = _undigest([inputs for _, _, inputs in rejects], parents)
    f.attrs["rejects"] = np.bytes_(rejects_digest(rejects))


def _dataset(f: h5py.File, name: str, column: Column, rows: int) -> None:
    kinds: dict[str, Any] = {"bytes": h5py.vlen_dtype(np.uint8), **dict.fromkeys(TEXT, h5py.string_dtype("utf-8"))}
    size = _row_bytes(column)
    rows_per_chunk = 1024 if column.dtype in kinds else max(1, min(1024, CHUNK // size))
    # Label maps become about fifty times smaller; no other column here compresses well.
    compression = {"compression": "gzip", "compression_opts": 1} if column.dtype == "u1" and size >= 4096 else {}
    f.create_dataset(
        name,
        (rows, *column.shape),
        kinds.get(column.dtype, column.dtype),
        maxshape=(None, *column.shape),
        chunks=(rows_per_chunk, *column.shape),
        fletcher32=column.dtype not in kinds,
        track_times=False,
        **compression,
    )


def _row_bytes(column: Column) -> int:
    """Bytes of a row; for bytes and text an estimate that keeps blocks small."""
    if column.dtype in VARYING:
        return 1 << 17 if column.dtype == "bytes" else 128
    return max(1, np.dtype(column.dtype).itemsize * int(np.prod(column.shape)))


def _put(dataset: h5py.Dataset, start: int, values: Sequence[Any]) -> None:
    """Write `values` to the rows from `start` on."""
    if len(values) and isinstance(values[0], bytes):
        for i, value in enumerate(values, start):  # one by one: h5py would read rows of equal length as a 2-D array
            dataset[i] = np.frombuffer(value, np.uint8)
    elif len(values):
        dataset[start : start + len(values)] = (
            values
            if isinstance(values, np.ndarray)
            else np.array(values, object if isinstance(values[0], str) else None)
        )


def _undigest(values: Sequence[bytes], parents: int | None = None) -> np.ndarray:
    shape = (len(values), 16) if parents is None else (len(values), parents, 16)
    return np.frombuffer(b"".join(values), np.uint8).reshape(shape)
