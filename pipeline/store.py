"""HDF5 caches: immutable files of rows, each row with its content's digest and its inputs', sorted by key.

A cache `images.h5` and its parts `images.parts/000001.h5` have the same shape:
  key S88 [N], one dataset a column, digest u1 [N,16] of the row's content, inputs u1 [N,P,16] of what it was made from;
  rejects/{key,reason,inputs} for the inputs that gave no row; attributes `provenance` (JSON) and `schema`.
Fletcher32 guards every chunk. HDF5 cannot guard values of any length (bytes, text) that way: there `digest` does.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from pipeline import SCHEMA
from pipeline.errors import Fault
from pipeline.files import replacing
from pipeline.sources import KEY_LENGTH
from pipeline.spec import Column, Row, digest, digest_all

KEY = Column(f"S{KEY_LENGTH}")
REASON = Column("text")
CHUNK = 1 << 16  # bytes; one row a chunk when a row is larger
BLOCK = 1 << 23  # bytes moved at once while compacting
FORMAT = ("v110", "v110")  # the first whose own structures carry checksums, too
OVERHEAD = 1 << 14  # bytes that Python's objects add to a row, with room to spare
OPEN = 4  # files read at once while compacting; HDF5 keeps some MB of each
_VARYING = ("bytes", "text")


class Entry(NamedTuple):
    """Where a key's row lies and what it was made from; a reject has row -1 and a reason."""

    file: int
    row: int
    inputs: bytes
    digest: bytes
    reason: str = ""


@dataclass
class Batch:
    """Rows and rejects on their way into one file; both keep the order they were added in."""

    keys: list[str]
    rows: list[Row]
    inputs: list[bytes]
    rejects: list[tuple[str, str, bytes]]  # key, reason, inputs
    nbytes: int = 0  # roughly what the rows hold in memory

    @classmethod
    def empty(cls) -> "Batch":
        return cls([], [], [], [])

    def add(self, key: str, row: Row, inputs: bytes) -> None:
        """Take in a row."""
        self.keys.append(key)
        self.rows.append(row)
        self.inputs.append(inputs)
        self.nbytes += OVERHEAD + sum(len(v) if isinstance(v, bytes | str) else v.nbytes for v in row.values())

    def extend(self, other: "Batch") -> None:
        """Take in all of another batch."""
        for mine, more in ((self.keys, other.keys), (self.rows, other.rows), (self.inputs, other.inputs),
                           (self.rejects, other.rejects)):
            mine += more  # type: ignore[operator]
        self.nbytes += other.nbytes

    def __len__(self) -> int:
        return len(self.keys) + len(self.rejects)


class Cache:
    """A cache or part file opened for reading; use it as a context manager.

    Raises: Fault when the file is not a readable cache of this schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.h5 = h5py.File(path, "r", locking=False)
            self.provenance: dict[str, Any] = json.loads(self.h5.attrs["provenance"])
        except (OSError, KeyError, ValueError) as e:
            raise _damaged(path, e) from e
        self.columns = {n: Column(c[0], tuple(c[1:])) for n, c in self.provenance["columns"].items()}  # as declared
        self._rows: dict[str, int] | None = None
        self._datasets: dict[str, h5py.Dataset] = {}  # looking one up costs as much as reading a row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.h5.close()

    def keys(self) -> list[str]:
        """All keys, in the file's order."""
        return _strings(self._read("key"))

    def __len__(self) -> int:
        """How many rows there are."""
        return self.length("key")

    def length(self, name: str) -> int:
        """Rows of one dataset."""
        return len(self._dataset(name))

    @property
    def width(self) -> int:
        """How many inputs a row has."""
        return int(self._dataset("inputs").shape[1])

    def entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of every row and reject; `number` is put in as the entry's file."""
        return self.row_entries(0, len(self), number) | self.reject_entries(number)

    def row_entries(self, start: int, stop: int, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of some rows."""
        some = slice(start, stop)
        found = zip(_strings(self._read("key", some)), range(start, stop), _digests(self._read("inputs", some)),
                    _digests(self._read("digest", some)), strict=True)
        return {key: Entry(number, row, made, content) for key, row, made, content in found}

    def digests(self) -> dict[str, bytes]:
        """Key -> digest of every row: all that a stage has to know of what it reads."""
        return dict(zip(self.keys(), _digests(self._read("digest")), strict=True))

    def rows_digest(self) -> str:
        """`file_digest` of the rows, noted when the file was written."""
        noted = self.h5.attrs.get("rows")
        return bytes(noted).decode() if noted is not None else file_digest(self.entries())

    def reject_entries(self, number: int = 0) -> dict[str, Entry]:
        """Key -> Entry of the rejects. Raises: Fault when they are not what was written."""
        found = [*zip(_strings(self._read("rejects/key")), self._read("rejects/reason", text=True),
                      _digests(self._read("rejects/inputs")), strict=True)]
        if self.h5.attrs.get("rejects") not in (None, _rejects_digest(found).encode()):
            raise _damaged(self.path, ValueError("not the digest it should have"), "rejects")
        return {key: Entry(number, -1, made, b"", reason) for key, reason, made in found}

    def rows(self, keys: Iterable[str], columns: Sequence[str]) -> list[Row]:
        """The rows of `keys` with the datasets `columns`.

        Raises: Fault for an unknown key or dataset, or a row that is damaged.
        """
        if self._rows is None:
            self._rows = {key: i for i, key in enumerate(self.keys())}
        unknown = set(columns) - set(self.columns)
        if unknown:
            raise Fault(f"{self.path}: no dataset {sorted(unknown)}; it holds {sorted(self.columns)}")
        # Without a checksum of their own, bytes are good only if the whole row has the digest it should have.
        guarded = any(self.columns[name].dtype == "bytes" for name in columns)
        wanted = list(keys)
        unknown_keys = [key for key in wanted if key not in self._rows]
        if unknown_keys:
            raise Fault(f"{self.path}: no key {unknown_keys[0]!r}")
        rows: list[Row] = []
        digests: list[bytes] = []
        for _, start, stop in stretches([(0, self._rows[key]) for key in wanted]):
            blocks = {name: self.block(name, start, stop) for name in (self.columns if guarded else columns)}
            rows += [{name: block[i] for name, block in blocks.items()} for i in range(stop - start)]
            if guarded:
                digests += _digests(self._read("digest", slice(start, stop)))
        for key, row, expected in zip(wanted, rows, digests, strict=False):
            if row_digest(row) != expected:
                raise _damaged(self.path, ValueError(f"key {key!r} does not have its digest"))
        return [{name: row[name] for name in columns} for row in rows]

    def block(self, name: str, start: int, stop: int) -> Any:
        """Rows start..stop of one column: an array, or a list of bytes or str; a bad checksum is a Fault."""
        kind = self.columns[name].dtype
        values = self._read(name, slice(start, stop), text=kind == "text")
        return [v.tobytes() for v in values] if kind == "bytes" else values

    def _read(self, name: str, where: slice = slice(None), text: bool = False) -> Any:
        try:
            dataset = self._dataset(name)
            return list(dataset.asstr()[where]) if text else dataset[where]
        except (OSError, KeyError, ValueError, RuntimeError, MemoryError) as e:  # what damage looks like to HDF5
            raise _damaged(self.path, e, name) from e

    def _dataset(self, name: str) -> h5py.Dataset:
        try:
            found = self._datasets[name] = self._datasets.get(name) or self.h5[name]
        except (KeyError, RuntimeError) as e:
            raise _damaged(self.path, e, name) from e
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


def part_folder(path: Path) -> Path:
    """Where the parts of a cache file lie until they are compacted."""
    return path.with_suffix(".parts")


def parts(path: Path) -> list[Path]:
    """The part files of a cache file, oldest first."""
    return sorted(p for p in part_folder(path).glob("*.h5") if p.stem.isdigit())


def next_part(path: Path) -> int:
    """The number of the next part of a cache file."""
    return max((int(p.stem) for p in parts(path)), default=0) + 1


def write_part(path: Path, batch: Batch, columns: Mapping[str, Column], parents: int, provenance: dict,
               number: int | None = None) -> Path:
    """Write `batch` as a part of the cache file `path`, the next one or `number`; it exists whole or not at all."""
    part = part_folder(path) / f"{number or next_part(path):06d}.h5"
    with replacing(part) as temporary, h5py.File(temporary, "w", libver=FORMAT) as f:
        _create(f, columns, len(batch.keys), parents, provenance)
        f["key"][:] = np.array([k.encode() for k in batch.keys], KEY.dtype)
        f["inputs"][:] = _undigest(batch.inputs, parents)
        f["digest"][:] = _undigest([row_digest(r) for r in batch.rows])
        for name in columns:
            _put(f[name], 0, [r[name] for r in batch.rows])
        _put_rejects(f, batch.rejects, parents)
    return part


def compact(path: Path, files: Sequence[Path], entries: Mapping[str, Entry], columns: Mapping[str, Column],
            parents: int, provenance: dict) -> None:
    """Write `entries` (rows and rejects of `files`, by number) as the cache file `path`, sorted by key."""
    order = [key for key in sorted(entries) if entries[key].row >= 0]
    rejects = [(key, e.reason, e.inputs) for key, e in sorted(entries.items()) if e.row < 0]
    with replacing(path) as temporary, h5py.File(temporary, "w", libver=FORMAT) as f, _Files(files) as opened:
        _create(f, columns, len(order), parents, provenance)
        f["key"][:] = np.fromiter((key.encode() for key in order), KEY.dtype, len(order))
        f["inputs"][:] = _undigest([entries[key].inputs for key in order], parents)
        f["digest"][:] = _undigest([entries[key].digest for key in order])
        _put_rejects(f, rejects, parents)
        f.attrs["rows"] = np.bytes_(file_digest(entries))
        for name, column in columns.items():
            # Blocks of the new file, whole chunks each: how the rows lay in the parts leaves no trace in its bytes.
            chunk = f[name].chunks[0]
            step = max(1, BLOCK // _row_bytes(column) // chunk) * chunk if column.dtype not in _VARYING else 64
            for start in range(0, len(order), step):
                places = [entries[key][:2] for key in order[start:start + step]]  # file, row
                blocks = [opened[number].block(name, *rows) for number, *rows in stretches(places)]
                _put(f[name], start, _joined(blocks))


def _joined(blocks: Sequence[Any]) -> Any:
    arrays = isinstance(blocks[0], np.ndarray)
    return np.concatenate(blocks) if arrays else list(itertools.chain.from_iterable(blocks))


class _Files:
    """Caches by their number among `files`; only a few are open at a time, as a long run leaves thousands of parts."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._open: dict[int, Cache] = {}

    def __getitem__(self, number: int) -> Cache:
        if number not in self._open:
            if len(self._open) >= OPEN:
                self._open.pop(next(iter(self._open))).h5.close()
            self._open[number] = Cache(self._files[number])
        self._open[number] = self._open.pop(number)  # the first to be closed is the one not used for longest
        return self._open[number]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for cache in self._open.values():
            cache.h5.close()


def stretches(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(file, start, stop) of the runs of neighbouring rows among (file, row) places: a run is read as one slice."""
    out: list[tuple[int, int, int]] = []
    for file, row in places:
        if out and out[-1][0] == file and out[-1][2] == row:
            out[-1] = (file, out[-1][1], row + 1)
        else:
            out.append((file, row, row + 1))
    return out


def _create(f: h5py.File, columns: Mapping[str, Column], rows: int, parents: int, provenance: dict) -> None:
    f.attrs["provenance"] = np.bytes_(json.dumps(provenance, sort_keys=True))  # of fixed length: those have a checksum
    f.attrs["schema"] = SCHEMA
    fixed = {"key": KEY, "inputs": Column("u1", (parents, 16)), "digest": Column("u1", (16,))}
    for name, column in {**columns, **fixed}.items():
        _dataset(f, name, column, rows)


def _put_rejects(f: h5py.File, rejects: Sequence[tuple[str, str, bytes]], parents: int) -> None:
    for name, column in {"key": KEY, "reason": REASON, "inputs": Column("u1", (parents, 16))}.items():
        _dataset(f, f"rejects/{name}", column, len(rejects))
    f["rejects/key"][:] = np.array([key.encode() for key, _, _ in rejects], KEY.dtype)
    rejects = [(key, reason.replace("\0", " "), made) for key, reason, made in rejects]
    _put(f["rejects/reason"], 0, [reason for _, reason, _ in rejects])
    f["rejects/inputs"][:] = _undigest([made for _, _, made in rejects], parents)
    f.attrs["rejects"] = np.bytes_(_rejects_digest(rejects))


def _rejects_digest(rejects: Sequence[tuple[str, str, bytes]]) -> str:
    return digest(*(part for key, reason, made in rejects for part in (key.encode(), reason.encode(), made))).hex()


def _dataset(f: h5py.File, name: str, column: Column, rows: int) -> None:
    kinds: dict[str, Any] = {"bytes": h5py.vlen_dtype(np.uint8), "text": h5py.string_dtype("utf-8")}
    size = _row_bytes(column)
    rows_a_chunk = 1024 if column.dtype in kinds else max(1, min(1024, CHUNK // size))
    # Label maps shrink about fifty times; nothing else here compresses.
    squeeze = {"compression": "gzip", "compression_opts": 1} if column.dtype == "u1" and size >= 4096 else {}
    f.create_dataset(name, (rows, *column.shape), kinds.get(column.dtype, column.dtype), maxshape=(None, *column.shape),
                     chunks=(rows_a_chunk, *column.shape), fletcher32=column.dtype not in kinds, track_times=False,
                     **squeeze)


def _row_bytes(column: Column) -> int:
    """Bytes of a row; for bytes and text a guess that keeps a block of them small."""
    if column.dtype in ("bytes", "text"):
        return 1 << 17 if column.dtype == "bytes" else 128
    return max(1, np.dtype(column.dtype).itemsize * int(np.prod(column.shape)))


def _put(dataset: h5py.Dataset, start: int, values: Sequence[Any]) -> None:
    """Write `values` as rows from `start` on."""
    if len(values) and isinstance(values[0], bytes):
        for i, value in enumerate(values, start):  # one at a time: h5py takes rows of equal length for a 2-D array
            dataset[i] = np.frombuffer(value, np.uint8)
    elif len(values):
        dataset[start:start + len(values)] = values if isinstance(values, np.ndarray) else np.array(
            values, object if isinstance(values[0], str) else None)


def _plain(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()


def _strings(values: np.ndarray) -> list[str]:
    return [v.decode() for v in values.tolist()]


def _digests(values: np.ndarray) -> list[bytes]:
    data, width = values.tobytes(), values[:1].nbytes
    return [data[i : i + width] for i in range(0, len(data), width)] if width else []


def _undigest(values: Sequence[bytes], parents: int | None = None) -> np.ndarray:
    shape = (len(values), 16) if parents is None else (len(values), parents, 16)
    return np.frombuffer(b"".join(values), np.uint8).reshape(shape)


def _damaged(path: Path, error: Exception, dataset: str = "") -> Fault:
    where = f"{path}, dataset {dataset}" if dataset else str(path)
    if isinstance(error, FileNotFoundError):
        return Fault(f"{path}: no such cache; run the stage that writes it")
    return Fault(f"{where}: damaged ({error}); `hypernst verify --repair` drops what is bad, then run the stage again")
