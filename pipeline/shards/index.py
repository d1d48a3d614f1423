"""The index of the shards: where each sample lies, and what the shards were made from."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import SCHEMA, __version__
from pipeline.errors import UserError
from pipeline.shards.store import Store
from pipeline.sources.keys import KEY

MEMBERS = ("jpg", "region.png", "latent.npy", "codes.npy", "json")  # the members of every sample, in this order
BLOCK = 512  # bytes of a block of a tar
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


def read_index(folder: Path | Store) -> tuple[dict[str, Any], list[Shard]]:
    """The provenance and the shards in index.json; every tar of a folder is checked to exist with its full size.

    Raises: UserError when the index is missing, has another schema, or does not fit the tars.
    """
    if isinstance(folder, Store):
        return parse_index(folder.whole("index.json"), str(folder))
    provenance, shards = parse_index(
        (folder / "index.json").read_bytes() if (folder / "index.json").exists() else b"", str(folder)
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
        return {**read_index(folder)[0], "program": __version__} == json.loads(json.dumps(provenance))
    except UserError:
        return False


def members(shard: Shard, i: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name in the tar, offset of its header, size) of each member of sample i."""
    at = shard.offsets[i]
    for member, size in zip(MEMBERS, shard.sizes[i], strict=True):
        yield f"{shard.keys[i]}.{member}", at, size
        at += BLOCK + padded(size)


def padded(size: int) -> int:
    """The size in bytes, rounded up to whole blocks of a tar."""
    return -(-size // BLOCK) * BLOCK
