"""Digests of rows, rejects, labels and whole files, by key as arrays; and the checksum of a packed chunk.

Large caches are compared and joined as a whole, not key by key.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from pipeline.caches.hdf5 import KEY
from pipeline.caches.schema import Column, Entry
from pipeline.hashing import DIGEST, digest, digest_all

BLOCK = 1 << 14  # rows hashed at a time


class Index(Mapping[str, bytes]):
    """Keys with a digest, or several joined: `names` S88 [N], sorted, and `digests` u1 [N, bytes].

    Digests of zeros are not known; as items they are b"".
    """

    def __init__(self, names: np.ndarray, digests: np.ndarray) -> None:
        if len(names) and not (names[:-1] <= names[1:]).all():
            order = np.argsort(names, kind="stable")  # fast where sorted stretches follow each other
            names, digests = names[order], digests[order]
        self.names, self.digests = names, digests

    @classmethod
    def of(cls, digests: Mapping[str, bytes], parents: int = 1) -> Self:
        """The index of a dict, with digests of so many parents joined, or b""."""
        unknown = bytes(DIGEST * parents)
        data = bytearray().join(value or unknown for value in digests.values())
        names = np.fromiter((key.encode() for key in digests), f"S{KEY}", len(digests))
        return cls(names, np.frombuffer(data, np.uint8).reshape(len(digests), DIGEST * parents))

    @classmethod
    def union(cls, parts: Sequence["Index"]) -> Self:
        """All keys of some indices."""
        return (
            cls.of({})
            if not parts
            else cls(np.concatenate([part.names for part in parts]), np.concatenate([part.digests for part in parts]))
        )

    def common(self, other: "Index") -> "Index":
        """The keys that both have, with the digests of both joined."""
        if np.array_equal(self.names, other.names):
            return Index(self.names, np.concatenate([self.digests, other.digests], 1))
        at = other.find(self.names)
        there = at >= 0
        return Index(self.names[there], np.concatenate([self.digests[there], other.digests[at[there]]], 1))

    def find(self, names: np.ndarray) -> np.ndarray:
        """The place of each of these keys, -1 where it is not here: int [M]."""
        return find(self.names, names)

    def holds(self, other: "Index") -> bool:
        """Whether all that the other one says is said here as well."""
        at = self.find(other.names)
        return bool((at >= 0).all() and np.array_equal(self.digests[at], other.digests))

    def put(self, digests: Mapping[str, bytes]) -> None:
        """Set the digests of keys that are here."""
        for key, value in digests.items():
            self.digests[np.searchsorted(self.names, np.bytes_(key.encode()))] = np.frombuffer(value, np.uint8)

    def repeated(self) -> np.ndarray:
        """The keys that are there more than once, S88."""
        return self.names[1:][self.names[1:] == self.names[:-1]]

    def file_digest(self) -> str:
        """The hex digest of all rows of a file, by the digests of the rows: as `digest_all` of each key and digest."""
        total = hashlib.blake2b(digest_size=DIGEST)
        for start in range(0, len(self.names), BLOCK):
            names = self.names[start : start + BLOCK]
            lengths = np.char.str_len(names).astype("<u8")
            letters = np.frombuffer(names.tobytes(), np.uint8).reshape(len(names), -1)
            digests = self.digests[start : start + BLOCK]
            sizes = np.full(len(names), digests.shape[1], "<u8")
            fields = [lengths[:, None].view(np.uint8), letters, sizes[:, None].view(np.uint8), digests]
            used = np.ones((len(names), sum(field.shape[1] for field in fields)), bool)
            used[:, 8 : 8 + letters.shape[1]] = np.arange(letters.shape[1]) < lengths[:, None]
            total.update(np.concatenate(fields, 1)[used].tobytes())
        return total.hexdigest()

    def __getitem__(self, key: str) -> bytes:
        name = key.encode()
        at = int(np.searchsorted(self.names, np.bytes_(name)))
        if at == len(self.names) or self.names[at] != name:
            raise KeyError(key)
        value: bytes = self.digests[at].tobytes()
        return value if any(value) else b""

    def __iter__(self) -> Iterator[str]:
        return (name.decode() for name in self.names.tolist())

    def __len__(self) -> int:
        return len(self.names)


def find(sorted_names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each of the `wanted` keys among sorted ones, -1 where it is not there: int [M]."""
    if np.array_equal(sorted_names, wanted):
        return np.arange(len(wanted))
    if not len(sorted_names):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(sorted_names, wanted), len(sorted_names) - 1)
    return np.where(sorted_names[at] == wanted, at, -1)


def content_columns(columns: Mapping[str, Column]) -> list[str]:
    """The columns that a row's digest is of: all but labels."""
    return [name for name, column in columns.items() if column.dtype != "label"]


def row_digest(row: Mapping[str, Any]) -> bytes:
    """The digest of a row's content without its labels, columns sorted by name."""
    return digest(*(part for name in sorted(row) for part in (name.encode(), _plain(row[name]))))


def file_digest(entries: Mapping[str, Entry]) -> str:
    """The hex digest of all rows of a file, sorted by key."""
    return Index.of({key: entry.digest for key, entry in entries.items() if entry.row >= 0}).file_digest()


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
