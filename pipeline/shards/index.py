"""The index of the shards: where each sample lies, and what the shards were made from."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import SCHEMA
from pipeline.errors import UserError
from pipeline.files import read_plain
from pipeline.hashing import digest
from pipeline.shards.store import Span, Store
from pipeline.sources.keys import KEY

MEMBERS = ("jpg", "region.png", "latent.npy", "codes.npy", "json")  # the members of every sample, in this order
HEAD = 2048  # bytes of an index in a store by which it is recognised
BLOCK = 512  # bytes of a block of a tar
TOLD = ("program", "profile", "libraries")  # of the provenance: recorded, not compared
NAME = re.compile(r"[0-9a-z_-]+\.tar")


@dataclass
class Shard:
    """One tar as listed in the index: sample i starts at byte offsets[i], and its members have sizes[i] bytes."""

    name: str
    collection: str
    split: str
    samples: int
    bytes: int
    sha256: str
    keys: list[str]
    offsets: list[int]
    sizes: list[list[int]]


class Watch:
    """Notices when the shards of a folder are packed again while a reader of them is open.

    Packing removes index.json before it replaces a tar. So a tar that was opened before a successful `check` is of the
    packing that the reader knows.
    """

    def __init__(self, folder: Path | Store) -> None:
        self._folder = folder
        self._size = len(folder.whole("index.json")) if isinstance(folder, Store) else 0
        self._state, self._known = self._stat(), self._read()

    def check(self) -> None:
        """Raises: UserError when index.json is gone, or another one."""
        state = self._stat()
        if isinstance(self._folder, Store) or state != self._state:
            if self._read() != self._known:
                raise UserError(
                    f"{self._folder}: its shards were packed again while they were read, and old and new samples are "
                    "not mixed; run the same command again, once `hypernst shards` has ended"
                )
            self._state = state

    def _stat(self) -> tuple[int, ...]:
        try:
            state = (self._folder / "index.json").stat() if isinstance(self._folder, Path) else None
        except FileNotFoundError:
            state = None
        return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) if state else ()

    def _read(self) -> bytes:
        """The digest of the index; of one in a store only the beginning counts, which holds the provenance."""
        if isinstance(self._folder, Store):
            return digest(*self._folder.spans([Span("index.json", 0, min(HEAD, self._size), self._size)]))
        try:
            return digest(read_plain(self._folder / "index.json"))
        except FileNotFoundError:
            return b""


def identity(shards: Iterable[Shard]) -> str:
    """How many samples the shards hold, and which, by their content: `120 samples 1f2e3d4c5b6a`."""
    listed = sorted(shards, key=lambda shard: shard.name)
    content = digest(*(bytes.fromhex(shard.sha256) for shard in listed))
    return f"{sum(shard.samples for shard in listed)} samples {content.hex()[:12]}"


def read_index(folder: Path | Store) -> tuple[dict[str, Any], list[Shard]]:
    """The provenance and the shards in index.json; every tar of a folder is checked to exist with its full size.

    Raises: UserError when the index is missing, has another schema, or does not fit the tars.
    """
    if isinstance(folder, Store):
        return parse_index(folder.whole("index.json"), str(folder))
    provenance, shards = parse_index(
        read_plain(folder / "index.json") if (folder / "index.json").exists() else b"", str(folder)
    )
    for shard in shards:
        path = folder / shard.name
        size = path.stat().st_size if path.exists() else -1
        if size != shard.bytes:
            raise UserError(
                f"{path}: {'missing' if size < 0 else f'{size} bytes'}, but index.json says {shard.bytes}; "
                f"run `hypernst shards` again"
            )
    return provenance, shards


def parse_index(data: bytes, where: str) -> tuple[dict[str, Any], list[Shard]]:
    """The provenance and the shards in the bytes of an index.json; `where` names its folder in messages.

    Raises: UserError when the bytes are no index of this schema.
    """
    if not data:
        raise UserError(f"{where}: no index.json, so no finished shards; run `hypernst shards`")
    try:
        index = json.loads(data)
        if index["schema"] != SCHEMA or tuple(index["members"]) != MEMBERS:
            raise UserError(
                f"{where}/index.json: schema {index['schema']}, expected {SCHEMA}; run `hypernst shards` again"
            )
        shards = [Shard(**s) for s in index["shards"]]
        wrong = next(filter(None, map(_wrong, shards)), "")
        if not wrong and len({shard.name for shard in shards}) < len(shards):
            wrong = "a shard is listed twice"
        provenance = dict(index["provenance"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError) as e:
        raise UserError(f"{where}/index.json: not an index of shards ({e}); run `hypernst shards` again") from e
    if wrong:
        raise UserError(f"{where}/index.json: {wrong}; run `hypernst shards` again")
    return provenance, shards


def _wrong(shard: Shard) -> str:
    """What is wrong with the entry of a shard, or "". Names become parts of paths and commands, so they are checked."""
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
    if shard.offsets != [0, *ends[:-1].tolist()][: shard.samples] or shard.bytes != 2 * BLOCK + ends[-1:].sum():
        return f"{shard.name}: its offsets do not follow from its sizes"
    return ""


def is_current(folder: Path, provenance: dict[str, Any]) -> bool:
    """Whether `folder` holds finished shards of exactly this provenance."""
    try:
        return same(read_index(folder)[0], provenance)
    except UserError:
        return False


def same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two provenances stand for the same shards: they may differ in what is only TOLD."""
    return {**old, **told(new)} == json.loads(json.dumps(new))


def told(provenance: dict[str, Any]) -> dict[str, Any]:
    """The part of a provenance that decides nothing in the shards."""
    return {name: provenance.get(name) for name in TOLD}


def members(shard: Shard, i: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name in the tar, offset of its header, size) of each member of sample i."""
    at = shard.offsets[i]
    for member, size in zip(MEMBERS, shard.sizes[i], strict=True):
        yield f"{shard.keys[i]}.{member}", at, size
        at += BLOCK + padded(size)


def padded(size: int) -> int:
    """The size in bytes, rounded up to whole blocks of a tar."""
    return -(-size // BLOCK) * BLOCK
