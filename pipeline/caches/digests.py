"""Digests of rows, rejects, labels and whole files, and the checksum of a packed chunk."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.caches.schema import Column, Entry
from pipeline.hashing import digest, digest_all


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


def labels_digest(labels: Iterable[str]) -> str:
    """The hex digest of a column of labels."""
    return digest_all(label.encode() for label in labels).hex()


def rejects_digest(rejects: Sequence[tuple[str, str, bytes]]) -> str:
    """The hex digest of (key, reason, inputs) rejects, in this order."""
    return digest(*(part for key, reason, inputs in rejects for part in (key.encode(), reason.encode(), inputs))).hex()


def checks(data: bytes) -> bool:
    """Whether a packed chunk ends in the Fletcher32 checksum of the rest, as HDF5 computes it."""
    words = np.frombuffer(data[:-4] + b"\0" * (len(data) % 2), ">u2").astype(np.uint64)
    low, high = words.sum(), (words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum()
    stored = int.from_bytes(data[-4:], "little")
    return [int(low) % 65535, int(high) % 65535] == [(stored & 0xFFFF) % 65535, (stored >> 16) % 65535]


def _plain(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
