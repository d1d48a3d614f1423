"""Packs samples into tars whose bytes depend on the samples alone, with an index that is written last."""

import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline import SCHEMA, __version__
from pipeline.errors import Fault
from pipeline.files import replacing, write_atomic
from pipeline.sources import KEY
from pipeline.spec import digest

MEMBERS = ("jpg", "region.png", "latent.npy", "codes.npy", "json")  # of every sample, in this order
SPLITS = ("train", "test")
BLOCK = 512  # of a tar
NAME = re.compile(r"[0-9a-z_-]+\.tar")
Sample = Mapping[str, bytes]  # member -> content


@dataclass
class Shard:
    """One tar as the index lists it; sample i starts at offsets[i], its members are sizes[i] bytes each."""

    name: str
    collection: str
    split: str
    samples: int
    bytes: int
    sha256: str
    keys: list[str]
    offsets: list[int]
    sizes: list[list[int]]


def split_of(key: str, test_fraction: float) -> str:
    """`test` for that fraction of all keys, by hash: adding pictures never moves one to the other side."""
    return "test" if int.from_bytes(digest(b"split", key.encode())[:8]) < test_fraction * 2**64 else "train"


def shuffled(keys: Iterable[str]) -> list[str]:
    """The keys in the order they are packed: by hash, so that a reader in sequence sees no runs of similar names."""
    return sorted(keys, key=lambda key: digest(b"order", key.encode()))


def write(folder: Path, groups: Iterable[tuple[str, str, Iterable[tuple[str, Sample]]]], max_bytes: int,
          provenance: dict[str, Any]) -> list[Shard]:
    """Pack (collection, split, samples) groups into tars of at most `max_bytes`, then write index.json.

    While it works there is no index, so a killed run cannot pass for a finished one.
    """
    (folder / "index.json").unlink(missing_ok=True)
    shards: list[Shard] = []
    for collection, split, samples in groups:
        left = _Peekable(samples)
        while left:
            name = f"{collection}-{split}-{sum(s.name.startswith(f'{collection}-{split}-') for s in shards):06d}.tar"
            with replacing(folder / name) as temporary, temporary.open("wb") as f:
                shards.append(_fill(f, Shard(name, collection, split, 0, 0, "", [], [], []), left, max_bytes))
    named = {shard.name for shard in shards}
    for old in folder.glob("*.tar"):
        if old.name not in named:
            old.unlink()
    index = {"schema": SCHEMA, "provenance": provenance, "members": MEMBERS, "shards": [asdict(s) for s in shards]}
    write_atomic(folder / "index.json", json.dumps(index, sort_keys=True).encode())
    return shards


def refill(folder: Path, shard: Shard, samples: Iterable[tuple[str, Sample]]) -> bool:
    """Pack one shard of the index again; whether it came out as the index says."""
    made = Shard(shard.name, shard.collection, shard.split, 0, 0, "", [], [], [])
    with replacing(folder / shard.name) as temporary, temporary.open("wb") as f:
        return _fill(f, made, _Peekable(samples), sys.maxsize) == shard


def read_index(folder: Path) -> tuple[dict[str, Any], list[Shard]]:
    """Provenance and shards of index.json, each tar checked to be there in full length.

    Raises: Fault when the index is missing, of another schema, or does not fit the tars.
    """
    provenance, shards = parse_index((folder / "index.json").read_bytes() if (folder / "index.json").exists() else b"",
                                     str(folder))
    for shard in shards:
        path = folder / shard.name
        size = path.stat().st_size if path.exists() else -1
        if size != shard.bytes:
            raise Fault(f"{path}: {'missing' if size < 0 else f'{size} bytes'}, but index.json says {shard.bytes}; "
                        f"run `hypernst shards` again")
    return provenance, shards


def parse_index(data: bytes, where: str) -> tuple[dict[str, Any], list[Shard]]:
    """Provenance and shards out of the bytes of an index.json; raises Fault when it is not one of ours."""
    if not data:
        raise Fault(f"{where}: no index.json, so no finished shards; run `hypernst shards`")
    try:
        index = json.loads(data)
        if index["schema"] != SCHEMA or tuple(index["members"]) != MEMBERS:
            raise Fault(f"{where}/index.json: schema {index['schema']}, expected {SCHEMA}; run `hypernst shards` again")
        shards = [Shard(**s) for s in index["shards"]]
        wrong = next(filter(None, map(_wrong, shards)), "")
        provenance = dict(index["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError) as e:
        raise Fault(f"{where}/index.json: not an index of shards ({e}); run `hypernst shards` again") from e
    if wrong:
        raise Fault(f"{where}/index.json: {wrong}; run `hypernst shards` again")
    return provenance, shards


def _wrong(shard: Shard) -> str:
    """What is wrong with a shard's entry. Names are checked as they become parts of paths and of commands of gopen."""
    texts = [shard.name, shard.collection, shard.split, shard.sha256, *shard.keys]
    numbers = [shard.samples, shard.bytes, *shard.offsets, *(size for sizes in shard.sizes for size in sizes)]
    if not all(type(text) is str for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("texts in place of numbers, or numbers in place of texts")
    if not NAME.fullmatch(shard.name):
        return f"shard name {shard.name!r}; expected {NAME.pattern}"
    for key in shard.keys:
        if not KEY.fullmatch(key):
            return f"{shard.name}: key {key!r}; expected {KEY.pattern}"
    sizes = np.array(shard.sizes, np.int64).reshape(-1, len(MEMBERS))
    ends = np.cumsum((BLOCK + -(-sizes // BLOCK) * BLOCK).sum(1))
    if not len(shard.keys) == len(sizes) == len(shard.offsets) == shard.samples or sizes.min(initial=0) < 0:
        return f"{shard.name}: {len(shard.keys)} keys, {len(sizes)} sizes, {shard.samples} samples; expected as many"
    if shard.offsets != [0, *ends[:-1].tolist()][:shard.samples] or shard.bytes != 2 * BLOCK + ends[-1:].sum():
        return f"{shard.name}: its offsets do not follow from its sizes"
    return ""


def is_current(folder: Path, provenance: dict[str, Any]) -> bool:
    """Whether finished shards of exactly this provenance are there."""
    try:
        return {**read_index(folder)[0], "program": __version__} == json.loads(json.dumps(provenance))
    except Fault:
        return False


def members(shard: Shard, i: int) -> Iterator[tuple[str, int, int]]:
    """(name in the tar, offset of its header, size) of each member of sample i."""
    at = shard.offsets[i]
    for member, size in zip(MEMBERS, shard.sizes[i], strict=True):
        yield f"{shard.keys[i]}.{member}", at, size
        at += BLOCK + _padded(size)


def npy(array: np.ndarray) -> bytes:
    """The array as the bytes of a .npy file, never pickled."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _fill(f: BinaryIO, shard: Shard, samples: "_Peekable", max_bytes: int) -> Shard:
    """Write samples until the next would pass `max_bytes` (at least one), and note them in `shard`."""
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        shard.bytes += f.write(data)

    while samples:
        key, sample = samples.head
        sizes = [len(sample[member]) for member in MEMBERS]
        if shard.samples and shard.bytes + sum(BLOCK + _padded(size) for size in sizes) + 2 * BLOCK > max_bytes:
            break
        shard.keys.append(key)
        shard.offsets.append(shard.bytes)
        shard.sizes.append(sizes)
        shard.samples += 1
        for member, size in zip(MEMBERS, sizes, strict=True):
            info = tarfile.TarInfo(f"{key}.{member}")  # its defaults: time 0, owner 0, mode 644
            info.size = size
            put(info.tobuf(tarfile.USTAR_FORMAT))
            put(sample[member] + bytes(_padded(size) - size))
        samples.advance()
    put(bytes(2 * BLOCK))
    shard.sha256 = hashed.hexdigest()
    return shard


class _Peekable:
    """An iterator whose next item can be looked at; false when there is none."""

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


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
