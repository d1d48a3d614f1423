"""Writes files of rows: parts while a stage runs. `merge` makes a cache of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import SCHEMA
from pipeline.caches.digests import content_columns, labels_digest, rejects_digest, row_digest
from pipeline.caches.output import new_file
from pipeline.caches.schema import TEXT, VARYING, Column, Layout, Row
from pipeline.files import replacing
from pipeline.sources.keys import KEY_LENGTH

KEY = Column(f"S{KEY_LENGTH}")
REASON = Column("text")
CHUNK = 1 << 16  # bytes of a chunk; larger rows have one chunk per row
OVERHEAD = 1 << 14  # bytes that Python's objects add to a row, rounded up


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


def write_part(path: Path, batch: PendingRows, layout: Layout, number: int | None = None) -> Path:
    """Write `batch` as part `number` (default: the next one) of the cache file `path`, whole or not at all."""
    part = folder(path) / f"{number or next_number(path):06d}.h5"
    write_file(part, batch, layout)
    return part


def write_file(path: Path, batch: PendingRows, layout: Layout) -> None:
    """Write `batch` as the file `path`, whole or not at all."""
    with replacing(path) as temporary, new_file(temporary) as (f, output):
        create(f, layout, len(batch.keys))
        f["key"][:] = np.array([k.encode() for k in batch.keys], KEY.dtype)
        f["inputs"][:] = undigest(batch.inputs, layout.parents)
        content = content_columns(layout.columns)
        f["digest"][:] = undigest([row_digest({name: r[name] for name in content}) for r in batch.rows])
        for name in layout.columns:
            put(f[name], 0, [r[name] for r in batch.rows])
            output.check()
            if name not in content:
                f[name].attrs["digest"] = np.bytes_(labels_digest(r[name] for r in batch.rows))
        put_rejects(f, batch.rejects, layout.parents)


def create(f: h5py.File, layout: Layout, rows: int) -> None:
    """Add the attributes of a file of rows and a dataset for each column, with as many rows, still empty."""
    describe(f, layout.provenance)
    for name, column in {**layout.columns, **fixed(layout.parents)}.items():
        _dataset(f, name, column, rows)


def describe(f: h5py.File, provenance: dict) -> None:
    """Add how a file was made."""
    f.attrs["provenance"] = np.bytes_(json.dumps(provenance, sort_keys=True))  # fixed length: only this has a checksum
    f.attrs["schema"] = SCHEMA


def fixed(parents: int) -> dict[str, Column]:
    """The datasets that every file has one value per row in, besides its columns."""
    return {"key": KEY, "inputs": Column("u1", (parents, 16)), "digest": Column("u1", (16,))}


def of_rejects(parents: int) -> dict[str, Column]:
    """The datasets that every file has one value per reject in."""
    columns = {"key": KEY, "reason": REASON, "inputs": Column("u1", (parents, 16))}
    return {f"rejects/{name}": column for name, column in columns.items()}


def put_rejects(f: h5py.File, rejects: Sequence[tuple[str, str, bytes]], parents: int) -> None:
    """Add the rejects, which are (key, reason, inputs)."""
    for name, column in of_rejects(parents).items():
        _dataset(f, name, column, len(rejects))
    f["rejects/key"][:] = np.array([key.encode() for key, _, _ in rejects], KEY.dtype)
    rejects = [(key, reason.replace("\0", " "), inputs) for key, reason, inputs in rejects]
    put(f["rejects/reason"], 0, [reason for _, reason, _ in rejects])
    f["rejects/inputs"][:] = undigest([inputs for _, _, inputs in rejects], parents)
    f.attrs["rejects"] = np.bytes_(rejects_digest(rejects))


def _dataset(f: h5py.File, name: str, column: Column, rows: int) -> None:
    size = row_bytes(column)
    rows_per_chunk = 1024 if column.dtype in VARYING else max(1, min(1024, CHUNK // size))
    # Label maps become about fifty times smaller; no other column here compresses well.
    compression = {"compression": "gzip", "compression_opts": 1} if column.dtype == "u1" and size >= 4096 else {}
    f.create_dataset(
        name,
        (rows, *column.shape),
        kind(column),
        maxshape=(None, *column.shape),
        chunks=(rows_per_chunk, *column.shape),
        fletcher32=column.dtype not in VARYING,
        track_times=False,
        **compression,
    )


def kind(column: Column) -> Any:
    """The type that h5py gives a column's values."""
    kinds: dict[str, Any] = {"bytes": h5py.vlen_dtype(np.uint8), **dict.fromkeys(TEXT, h5py.string_dtype("utf-8"))}
    return kinds.get(column.dtype, column.dtype)


def row_bytes(column: Column) -> int:
    """Bytes of a row; for bytes and text an estimate that keeps blocks small."""
    if column.dtype in VARYING:
        return 1 << 17 if column.dtype == "bytes" else 128
    return max(1, np.dtype(column.dtype).itemsize * int(np.prod(column.shape)))


def put(dataset: h5py.Dataset, start: int, values: Sequence[Any]) -> None:
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


def undigest(values: Sequence[bytes], parents: int | None = None) -> np.ndarray:
    """Digests as an array u1 [N, 16], or [N, parents, 16] where each is of so many digests joined."""
    shape = (len(values), 16) if parents is None else (len(values), parents, 16)
    return np.frombuffer(b"".join(values), np.uint8).reshape(shape)
