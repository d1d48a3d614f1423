"""What is wrong with the caches and shards: checksums, digests, order, and each cache against its parents."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import hashing, ours
from pipeline.caches import reader, writer
from pipeline.caches.failures import DamagedError
from pipeline.caches.reader import Cache, Entry
from pipeline.errors import UserError
from pipeline.files import read_error
from pipeline.progress import say
from pipeline.shards import index
from pipeline.sources.keys import key_of

ROWS = 64  # checked at once


@dataclass
class Problem:
    """Something wrong with a file: the text for the user, and the keys it is about (none: the whole file).

    `fatal` is false when nothing is to be removed: once something else is repaired it may hold again, or it is not
    there. `partial`: the keys are not known, but the rest of the file is good. `unread`: nothing is known of it, as the
    system did not let it be read or it is not ours; then nothing is repaired.
    """

    path: Path
    text: str
    keys: list[str] = field(default_factory=list)
    fatal: bool = True
    partial: bool = False
    unread: bool = False

    def __str__(self) -> str:
        shown = ", ".join(self.keys[:5]) + (f" and {len(self.keys) - 5} more" if len(self.keys) > 5 else "")
        return f"{self.path}: {self.text}" + (f": {shown}" if self.keys else "")


def check_collection(folder: Path, limit: int | None = None) -> Iterator[Problem]:
    """Every problem of one collection's caches and parts."""
    mains: dict[str, tuple[dict[str, Any], dict[str, Entry]]] = {}
    try:
        os.listdir(folder)  # noqa: PTH208 - globbing takes a folder that may not be read for an empty one
    except FileNotFoundError:
        return
    except OSError as error:
        yield _unread(folder, error)
        return
    there = [*sorted(folder.glob("*.h5")), *sorted(folder.glob("*.parts/*.h5"))]
    own = [path for path in there if ours.is_cache_name(path.relative_to(folder))]
    if foreign := sorted(str(path.relative_to(folder)) for path in set(there) - set(own)):
        say(f"{folder}: {len(foreign)} files that no stage writes are not looked at: {', '.join(foreign[:5])}")
    for path in own:
        try:
            with Cache(path) as cache:
                entries, problems = readable(cache)
                yield from problems
                yield from check_rows(cache, entries)
                if not problems and cache.rows_digest() != reader.file_digest(entries):
                    yield Problem(path, "its rows do not have the digest that the file was written with")
                if path.parent == folder:
                    mains[path.stem] = cache.provenance, entries
        except DamagedError as fault:
            yield Problem(path, f"cannot be opened ({fault})")
        except UserError as fault:
            yield Problem(path, str(fault).removeprefix(f"{path}: "), fatal=False, unread=True)
    for unfinished in sorted(folder.glob("*.parts")):
        numbers = {int(part.stem) for part in writer.listed(unfinished.with_suffix(".h5"))}
        for number in sorted(set(range(1, max(numbers, default=0))) - numbers):
            yield Problem(unfinished / f"{number:06d}.h5", "part of an unfinished run is missing", fatal=False)
    for name, (provenance, entries) in mains.items():
        rows = {parent: of_parent for parent, (_, of_parent) in mains.items()}
        yield from _check_parents(folder / f"{name}.h5", provenance, entries, rows, limit)


def readable(cache: Cache) -> tuple[dict[str, Entry], list[Problem]]:
    """The entries that can be read, and a problem for each dataset about them that is damaged."""
    try:
        return cache.entries(), []
    except DamagedError:
        pass
    entries: dict[str, Entry] = {}
    lost: dict[str, list[str]] = {}
    for start in range(0, len(cache), ROWS):
        stop = min(start + ROWS, len(cache))
        try:
            entries |= cache.row_entries(start, stop)
        except DamagedError as fault:
            lost.setdefault(str(fault), []).append(f"{start}-{stop - 1}")
    try:
        entries |= cache.reject_entries()
    except DamagedError as fault:
        lost[str(fault)] = []
    return entries, [
        Problem(cache.path, f"{text}{', rows ' * bool(rows)}{', '.join(rows)}", partial=True)
        for text, rows in lost.items()
    ]


def check_rows(cache: Cache, entries: dict[str, Entry]) -> Iterator[Problem]:
    """Rows with a bad checksum, by dataset, or with content of another digest than is recorded; keys out of order."""
    rows = {e.row: (key, e.digest) for key, e in entries.items() if e.row >= 0}
    keys = [key for key, _ in rows.values()]
    if cache.path.parent.suffix != ".parts" and keys != sorted(keys):
        yield Problem(cache.path, "its keys are not sorted and unique")
    lengths = {name: cache.length(name) for name in (*cache.columns, "inputs", "digest")}
    if set(lengths.values()) != {len(cache)}:
        yield Problem(cache.path, f"its datasets have unequal lengths: {lengths}, {len(cache)} keys")
        return
    bad: dict[str, list[str]] = {}
    for start in range(0, len(cache), ROWS):
        stop = min(start + ROWS, len(cache))
        for i in range(start, stop) if not _readable(cache, start, stop) else ():
            for name in cache.columns:
                if i in rows and not _readable(cache, i, i + 1, name):
                    bad.setdefault(name, []).append(rows[i][0])
        broken = set().union(*bad.values())
        for i in range(start, stop):
            key, digest = rows.get(i, ("", b""))
            if key and key not in broken and reader.row_digest(_row(cache, i)) != digest:
                bad.setdefault("any (the row's digest differs)", []).append(key)
    for name in [] if bad else (n for n in cache.columns if n not in cache.content):
        bad |= _other_labels(cache, name)
    for name, which in bad.items():
        yield Problem(cache.path, f"dataset {name} is damaged at", which)


def _other_labels(cache: Cache, name: str) -> dict[str, list[str]]:
    """The keys of rows whose labels were changed, under the dataset's name; {} when none was."""
    labels, stored = cache.block(name, 0, len(cache)), cache.dataset(name).attrs.get("digest", b"")
    if reader.labels_digest(labels).encode() == stored:
        return {}
    keys = cache.keys()
    return {name: [key for key, label in zip(keys, labels, strict=True) if key_of(label) != key] or keys}


def _check_parents(
    path: Path,
    provenance: dict[str, Any],
    entries: dict[str, Entry],
    mains: dict[str, dict[str, Entry]],
    limit: int | None,
) -> Iterator[Problem]:
    """Rows made from rows that their parent no longer holds; keys that all parents have and this file lacks."""
    if not isinstance(provenance.get("parents"), dict):
        yield Problem(path, "its provenance names no parents")
        return
    parents = sorted(provenance["parents"])
    for i, parent in enumerate(parents):
        if parent not in mains:
            lost = path.with_name(f"{parent}.h5")
            yield Problem(path, f"was made from {lost.name}, which is missing or damaged", sorted(entries), fatal=False)
            if not lost.exists():
                yield Problem(lost, "is missing", fatal=False)
            return
        rows = mains[parent]
        gone = [k for k, e in entries.items() if k not in rows or rows[k].digest != e.inputs[16 * i : 16 * i + 16]]
        if gone:
            yield Problem(path, f"was made from other rows than {parent}.h5 holds, at", gone, fatal=False)
    held = [{key for key, e in mains[parent].items() if e.row >= 0} for parent in parents]
    lacking = [key for key in sorted(set.intersection(*held))[:limit] if key not in entries] if held else []
    if lacking:
        yield Problem(path, f"lacks keys that {' and '.join(parents)} have", lacking, fatal=False)


def check_shards(folder: Path) -> Iterator[Problem]:
    """Tars that differ from the index, or are not in it."""
    if not folder.exists():
        return
    try:
        data = (folder / "index.json").read_bytes() if (folder / "index.json").exists() else b""
    except OSError as error:
        yield _unread(folder / "index.json", error)
        return
    try:
        provenance, listed = index.parse_index(data, str(folder))
    except UserError as fault:
        yield Problem(folder / "index.json", str(fault))
        return
    parents = provenance.get("parents")
    for parent, made_from in parents.items() if isinstance(parents, dict) else ():
        cache = folder.parent / f"{parent}.h5"
        if not cache.exists():
            yield Problem(cache, "is missing, but the shards were made from it", fatal=False)
        elif _rows_digest(cache) not in ("", made_from):
            yield Problem(folder / "index.json", f"was made from other rows than {cache} holds", fatal=False)
    for shard in listed:
        yield from _check_shard(folder / shard.name, shard)
    strays = {path for path in folder.glob("*.tar") if ours.is_shard_name(path.name)} - {
        folder / s.name for s in listed
    }
    yield from (Problem(stray, "not in index.json") for stray in sorted(strays))


def _rows_digest(path: Path) -> str:
    """The digest of a cache's rows; "" where it cannot be read, which is another problem."""
    try:
        with Cache(path) as cache:
            return cache.rows_digest()
    except UserError:
        return ""


def _check_shard(path: Path, shard: index.Shard) -> Iterator[Problem]:
    try:
        if not path.exists():
            yield Problem(path, "missing, but index.json lists it")
        elif (size := path.stat().st_size) != shard.bytes:
            yield Problem(path, f"{size} bytes, but index.json says {shard.bytes}")
        elif hashing.sha256(path) != shard.sha256:
            yield Problem(path, "its sha256 is not the one in index.json")
    except OSError as error:
        yield _unread(path, error)


def _unread(path: Path, error: OSError) -> Problem:
    text = str(read_error(error.errno or errno.EIO, path)).removeprefix(f"{path}: ")
    return Problem(path, text, fatal=False, unread=True)


def _readable(cache: Cache, start: int, stop: int, name: str = "") -> bool:
    try:
        for column in [name] if name else cache.columns:
            cache.block(column, start, stop)
    except DamagedError:
        return False
    return True


def _row(cache: Cache, i: int) -> dict:
    return {name: cache.block(name, i, i + 1)[0] for name in cache.content}
