"""Packs samples into tars and writes their index last. The bytes depend on the samples alone."""

import hashlib
import io
import json
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline import SCHEMA, ours
from pipeline.files import move_aside, replacing, write_atomic
from pipeline.hashing import digest
from pipeline.shards.index import BLOCK, MEMBERS, Shard, padded

SPLITS = ("train", "test")
Sample = Mapping[str, bytes]  # member -> content


def split_of(key: str, test_fraction: float) -> str:
    """`test` for this fraction of all keys, by hash, else `train`; adding images never changes the split of others."""
    return "test" if int.from_bytes(digest(b"split", key.encode())[:8]) < test_fraction * 2**64 else "train"


def shuffled(keys: Iterable[str]) -> list[str]:
    """The keys in packing order: by hash, so that similar names are not neighbours."""
    return sorted(keys, key=lambda key: digest(b"order", key.encode()))


def write(
    folder: Path,
    groups: Iterable[tuple[str, str, Iterable[tuple[str, Sample]]]],
    max_bytes: int,
    provenance: dict[str, Any],
) -> list[Shard]:
    """Pack (collection, split, samples) groups into tars of at most `max_bytes`, then write index.json.

    The old index is removed first, so a killed run is never taken for a finished one.
    Raises: UserError when a file cannot be written.
    """
    drop_index(folder)
    shards: list[Shard] = []
    numbers: Counter[str] = Counter()
    for collection, split, samples in groups:
        remaining = _Peekable(samples)
        while remaining:
            name = f"{collection}-{split}-{numbers[f'{collection}-{split}']:06d}.tar"
            numbers[f"{collection}-{split}"] += 1
            if os.path.lexists(folder / name) and not ours.is_shard(folder / name):
                move_aside(folder / name)
            with replacing(folder / name) as temporary, temporary.open("wb") as f:
                shards.append(_fill(f, Shard(name, collection, split, 0, 0, "", [], [], []), remaining, max_bytes))
    named = {shard.name for shard in shards}
    for old in folder.glob("*.tar"):
        if old.name not in named and ours.is_shard_name(old.name) and ours.is_shard(old):
            old.unlink()
    index = {"schema": SCHEMA, "provenance": provenance, "members": MEMBERS, "shards": [asdict(s) for s in shards]}
    write_atomic(folder / "index.json", json.dumps(index, sort_keys=True).encode())
    return shards


def drop_index(folder: Path) -> None:
    """Remove index.json; one that none of ours begins like is moved aside."""
    path = folder / ours.INDEX
    if ours.is_index(path):
        path.unlink()
    elif os.path.lexists(path):
        move_aside(path)


def refill(folder: Path, shard: Shard, samples: Iterable[tuple[str, Sample]]) -> bool:
    """Pack one shard again; return whether the new one is exactly what the index says."""
    packed = Shard(shard.name, shard.collection, shard.split, 0, 0, "", [], [], [])
    with replacing(folder / shard.name) as temporary, temporary.open("wb") as f:
        return _fill(f, packed, _Peekable(samples), sys.maxsize) == shard


def npy(array: np.ndarray) -> bytes:
    """The array as the bytes of a .npy file. Raises: ValueError when it would need pickling."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _fill(f: BinaryIO, shard: Shard, samples: "_Peekable", max_bytes: int) -> Shard:
    """Write samples until the next one would exceed `max_bytes`, at least one, and list them in `shard`."""
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        shard.bytes += f.write(data)

    while samples:
        key, sample = samples.head
        sizes = [len(sample[member]) for member in MEMBERS]
        if shard.samples and shard.bytes + sum(BLOCK + padded(size) for size in sizes) + 2 * BLOCK > max_bytes:
            break
        shard.keys.append(key)
        shard.offsets.append(shard.bytes)
        shard.sizes.append(sizes)
        shard.samples += 1
        for member, size in zip(MEMBERS, sizes, strict=True):
            info = tarfile.TarInfo(f"{key}.{member}")  # its defaults: time 0, owner 0, mode 644
            info.size = size
            put(info.tobuf(tarfile.USTAR_FORMAT))
            put(sample[member] + bytes(padded(size) - size))
        samples.advance()
    put(bytes(2 * BLOCK))
    shard.sha256 = hashed.hexdigest()
    return shard


class _Peekable:
    """An iterator whose next item is `head`; it is false when there is none."""

    def __init__(self, items: Iterable[tuple[str, Sample]]) -> None:
        self._items = iter(items)
        self.advance()

    def advance(self) -> None:
        self._head = next(self._items, None)

    @property
    def head(self) -> tuple[str, Sample]:
        assert self._head is not None
        return self._head

    def __bool__(self) -> bool:
        return self._head is not None
