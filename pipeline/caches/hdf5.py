"""What a cache file may hold: an HDF5 file of unknown origin may hold only the datasets of a cache, inside the file.

HDF5 files can point to other files (external links, virtual datasets, external storage) and to code (filters that are
loaded). They can also claim any amount of memory (rows that were never written, chunks of any size). None of that is
followed or read.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.caches.schema import TEXT, VARYING, Column

ROW = 1 << 24  # most bytes of a row, and of a chunk
KEY = 88  # most bytes of a key
GZIP, CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32
ANY = -1
FIXED = {
    "key": Column(f"S{KEY}"),
    "inputs": Column("u1", (ANY, 16)),
    "digest": Column("u1", (16,)),
    "rejects/key": Column(f"S{KEY}"),
    "rejects/reason": Column("text"),
    "rejects/inputs": Column("u1", (ANY, 16)),
    "volumes/counts": Column("i8", (3,)),
    "volumes/digest": Column("u1", (16,)),
}


def provenance(h5: h5py.File) -> tuple[dict[str, Any], dict[str, Column]]:
    """How a file was made, and its columns. Raises: ValueError when the file does not say so in this form."""
    if "provenance" not in h5.attrs:
        raise ValueError("no attribute provenance")
    try:
        written = json.loads(text(h5.attrs["provenance"]))
    except RecursionError:
        raise ValueError("its provenance is nested too deeply") from None
    if not isinstance(written, dict) or not isinstance(columns := written.get("columns"), dict):
        raise ValueError("its provenance names no columns")
    return written, {name: _column(name, description) for name, description in columns.items()}


def _column(name: str, description: Any) -> Column:
    dtype, *shape = description if isinstance(description, list) and description else (None,)
    if isinstance(dtype, str) and all(type(side) is int and 0 < side <= ROW for side in shape):
        if dtype in VARYING and not shape:
            return Column(dtype)
        if re.fullmatch(r"\?|[a-z]+\d*|S\d+", dtype) and np.dtype(dtype).kind in "biufS":
            size = np.dtype(dtype).itemsize * float(np.prod([float(side) for side in shape]))
            if size <= ROW:
                return Column(dtype, tuple(shape))
    raise ValueError(f"its provenance describes column {name[:40]!r} in another way than caches do")


def text(value: Any) -> str:
    """A text attribute as str. Raises: ValueError when it is no text."""
    if not isinstance(value, bytes | str):
        raise ValueError(f"an attribute is {type(value).__name__}; expected text")
    return value.decode() if isinstance(value, bytes) else value


def plain(path: Path) -> None:
    """Check that `path` is a plain file; HDF5 would wait for a pipe. Raises: ValueError when it is another kind."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a plain file")


def dataset(h5: h5py.File, name: str, column: Column | None) -> h5py.Dataset:
    """A dataset stored in the file itself, in small chunks, with all rows written; `column` says what it must hold.

    Raises: KeyError when there is none; ValueError when it is stored in another way or holds something else.
    """
    dataset = _inside(h5, name)
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CHUNKED:
        raise ValueError("not stored in chunks of this file, but virtual, outside it or in one piece")
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if filters - {GZIP, CHECKSUM} or (GZIP in filters and name in FIXED):
        raise ValueError(f"packed by filters {sorted(filters)}; caches use gzip on columns and checksums only")
    if dataset.dtype.itemsize * float(np.prod([float(side) for side in dataset.chunks])) > ROW:
        raise ValueError(f"chunks of {dataset.chunks} {dataset.dtype}, more than {ROW >> 20} MB")
    _check_type(dataset, FIXED.get(name, column))
    small = name in FIXED or (column is not None and column.dtype in VARYING)
    if small and GZIP not in filters and dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
        raise ValueError(f"{len(dataset)} rows claimed, but they were never written")
    return dataset


def _inside(h5: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of this name; links are refused."""
    place: Any = h5
    for step in name.split("/"):
        link = place.get(step, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            where = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
            raise ValueError(f"a link to {where}; caches hold their rows themselves")
        place = place[step]
    if not isinstance(place, h5py.Dataset):
        raise ValueError("not a dataset")
    return place


def _check_type(dataset: h5py.Dataset, column: Column | None) -> None:
    if column is None:
        raise ValueError("not a dataset of caches")
    if column.dtype in TEXT:
        fits = h5py.check_string_dtype(dataset.dtype) is not None and dataset.ndim == 1
    elif column.dtype == "bytes":
        fits = h5py.check_vlen_dtype(dataset.dtype) == np.uint8 and dataset.ndim == 1
    else:
        expected = np.dtype(column.dtype)
        fits = dataset.dtype == expected or (
            expected.kind == dataset.dtype.kind == "S" and dataset.dtype.itemsize <= KEY
        )
        inner = [None if side == ANY else side for side in column.shape]
        fits = (
            fits
            and dataset.ndim == 1 + len(inner)
            and all(side in (None, there) for side, there in zip(inner, dataset.shape[1:], strict=True))
        )
    if not fits:
        raise ValueError(f"{dataset.dtype}{list(dataset.shape)}, expected rows of {column.dtype}{list(column.shape)}")
