"""What a cache file may hold: HDF5 of unknown origin is refused when it is more than datasets of ours, lying in it.

A file may lead to others (external links, virtual datasets, external storage), to code (filters that are loaded), and
to any amount of memory (rows that were never written, chunks of any size): none of that is followed or read.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.caches.schema import Column

ROW = 1 << 24  # bytes of a row, and of a chunk
KEY = 88  # bytes of a key at most
GZIP, CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32
VARYING = ("bytes", "text")
ANY = -1
FIXED = {
    "key": Column(f"S{KEY}"),
    "inputs": Column("u1", (ANY, 16)),
    "digest": Column("u1", (16,)),
    "rejects/key": Column(f"S{KEY}"),
    "rejects/reason": Column("text"),
    "rejects/inputs": Column("u1", (ANY, 16)),
}


def provenance(h5: h5py.File) -> tuple[dict[str, Any], dict[str, Column]]:
    """How a file was made, and its columns. Raises: ValueError for what is not written like that."""
    if "provenance" not in h5.attrs:
        raise ValueError("no attribute provenance")
    try:
        found = json.loads(text(h5.attrs["provenance"]))
    except RecursionError:
        raise ValueError("its provenance is nested too deeply") from None
    if not isinstance(found, dict) or not isinstance(columns := found.get("columns"), dict):
        raise ValueError("its provenance names no columns")
    return found, {name: _column(name, said) for name, said in columns.items()}


def _column(name: str, said: Any) -> Column:
    dtype, *shape = said if isinstance(said, list) and said else (None,)
    if isinstance(dtype, str) and all(type(side) is int and 0 < side <= ROW for side in shape):
        if dtype in VARYING and not shape:
            return Column(dtype)
        if re.fullmatch(r"\?|[a-z]+\d*|S\d+", dtype) and np.dtype(dtype).kind in "biufS":
            size = np.dtype(dtype).itemsize * float(np.prod([float(side) for side in shape]))
            if size <= ROW:
                return Column(dtype, tuple(shape))
    raise ValueError(f"its provenance describes column {name[:40]!r} in another way than caches do")


def text(value: Any) -> str:
    """An attribute that is text. Raises: ValueError for any other."""
    if not isinstance(value, bytes | str):
        raise ValueError(f"an attribute is {type(value).__name__}; expected text")
    return value.decode() if isinstance(value, bytes) else value


def plain(path: Path) -> None:
    """Raises: ValueError for a pipe, a device or a folder, which HDF5 would wait for or fail on."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a plain file")


def dataset(h5: h5py.File, name: str, column: Column | None) -> h5py.Dataset:
    """A dataset of the file itself, in chunks of few bytes, its rows written; `column` says what it has to be.

    Raises: ValueError for any other; KeyError where there is none.
    """
    found = _inside(h5, name)
    made = found.id.get_create_plist()
    if made.get_layout() != h5py.h5d.CHUNKED:
        raise ValueError("not stored in chunks of this file, but virtual, outside it or in one piece")
    filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
    if filters - {GZIP, CHECKSUM} or (GZIP in filters and name in FIXED):
        raise ValueError(f"packed by filters {sorted(filters)}; caches use gzip on columns and checksums only")
    if found.dtype.itemsize * float(np.prod([float(side) for side in found.chunks])) > ROW:
        raise ValueError(f"chunks of {found.chunks} {found.dtype}, more than {ROW >> 20} MB")
    _check_type(found, FIXED.get(name, column))
    small = name in FIXED or (column is not None and column.dtype in VARYING)
    if small and GZIP not in filters and found.id.get_storage_size() < found.size * found.dtype.itemsize:
        raise ValueError(f"{len(found)} rows claimed, but they were never written")
    return found


def _inside(h5: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that is reached without leaving the file."""
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


def _check_type(found: h5py.Dataset, column: Column | None) -> None:
    if column is None:
        raise ValueError("not a dataset of caches")
    if column.dtype == "text":
        fits = h5py.check_string_dtype(found.dtype) is not None and found.ndim == 1
    elif column.dtype == "bytes":
        fits = h5py.check_vlen_dtype(found.dtype) == np.uint8 and found.ndim == 1
    else:
        wanted = np.dtype(column.dtype)
        fits = found.dtype == wanted or (wanted.kind == found.dtype.kind == "S" and found.dtype.itemsize <= KEY)
        inner = [None if side == ANY else side for side in column.shape]
        fits = (
            fits
            and found.ndim == 1 + len(inner)
            and all(side in (None, there) for side, there in zip(inner, found.shape[1:], strict=True))
        )
    if not fits:
        raise ValueError(f"{found.dtype}{list(found.shape)}, expected rows of {column.dtype}{list(column.shape)}")
