"""What is wrong with the caches and shards: each file by itself, volumes against their list, caches against parents."""

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import hashing, ours
from pipeline.caches import writer
from pipeline.caches.digests import file_digest
from pipeline.caches.entry import all_rejects_digest, shows_otherwise
from pipeline.caches.failures import DamagedError
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Entry
from pipeline.caches.volume import Volume
from pipeline.errors import UserError
from pipeline.files import read_error, read_plain
from pipeline.progress import say
from pipeline.shards import index
from pipeline.verification.processes import over_processes
from pipeline.verification.record import Record
from pipeline.verification.rows import Problem, check_content, readable

Held = tuple[dict[str, Any], dict[str, Entry]]  # a cache's provenance and entries


def check_collection(folder: Path, limit: int | None = None, record: Record | None = None) -> Iterator[Problem]:
    """Every problem of one collection's caches, volumes and parts; files that `record` trusts are not read again."""
    record = record or Record(folder, everything=True)
    try:
        os.listdir(folder)  # noqa: PTH208 - globbing takes a folder that may not be read for an empty one
    except FileNotFoundError:
        return
    except OSError as error:
        yield _unread(folder, error)
        return
    there = [*sorted(folder.glob("*.h5")), *(f for kind in ours.HOLDS for f in sorted(folder.glob(f"*{kind}/*.h5")))]
    own = [path for path in there if ours.is_cache_name(path.relative_to(folder))]
    if foreign := sorted(str(path.relative_to(folder)) for path in set(there) - set(own)):
        say(f"{folder}: {len(foreign)} files that no stage writes are not looked at: {', '.join(foreign[:5])}")
    found: list[Problem] = []
    mains: dict[str, Held] = {}
    to_read: dict[Path, str] = {}
    for path, files in _files_of_rows(own, found).items():
        known = len(found)
        held = [one for file in files if (one := _read(file, found, to_read))]
        if files != [path] and len(found) == known:
            found += _check_list(path, {key: e for _, entries in held for key, e in entries.items()})
        if path.parent == folder and held:
            mains[path.stem] = held[-1][0], {key: e for _, entries in held for key, e in entries.items()}
    yield from found
    yield from _check_contents(to_read, record)
    for unfinished in sorted(folder.glob("*.parts")):
        numbers = {int(part.stem) for part in writer.listed(unfinished.with_suffix(".h5"))}
        for number in sorted(set(range(1, max(numbers, default=0))) - numbers):
            yield Problem(unfinished / f"{number:06d}.h5", "part of an unfinished run is missing", fatal=False)
    for name, (provenance, entries) in mains.items():
        rows = {parent: of_parent for parent, (_, of_parent) in mains.items()}
        yield from _check_parents(folder / f"{name}.h5", provenance, entries, rows, limit)


def _files_of_rows(own: list[Path], found: list[Problem]) -> dict[Path, list[Path]]:
    """Each cache file with the files that hold its rows; parts, and volumes without a cache file, by themselves.

    Volumes that a cache file does not list are left out: the next run removes them.
    """
    held: dict[Path, list[Path]] = {}
    for path in (path for path in own if path.parent.suffix not in ours.HOLDS):
        try:
            with Cache(path) as cache:
                held[path] = cache.files
        except UserError as fault:
            found.append(_unopened(path, fault))
    mains = set(held)
    alone = (path for path in own if path.parent.suffix in ours.HOLDS)
    return held | {p: [p] for p in alone if p.parent.suffix == ".parts" or p.parent.with_suffix(".h5") not in mains}


def _read(path: Path, found: list[Problem], to_read: dict[Path, str]) -> Held | None:
    """A file's provenance and entries, if it can be opened; its problems are added to `found`.

    Where it has none it is added to `to_read`, with its digest.
    """
    if not path.exists():
        found.append(Problem(path, f"missing, but {path.parent.with_suffix('.h5').name} lists it"))
        return None
    try:
        with Volume(path) as volume:
            entries, problems = readable(volume)
            if not problems and volume.rows_digest() != file_digest(entries):
                problems.append(Problem(path, "its rows do not have the digest that the file was written with"))
            if not problems:
                to_read[path] = volume.identity().hex()
            found += problems
            return volume.provenance, entries
    except UserError as fault:
        found.append(_unopened(path, fault))
        return None


def _check_list(path: Path, entries: dict[str, Entry]) -> Iterator[Problem]:
    """Problems of a cache file that lists volumes, which hold `entries` and can be read."""
    with Cache(path) as cache:
        for number, file in enumerate(cache.files):
            try:
                cache.volume(number)
            except DamagedError:
                yield Problem(file, f"not the one that {path.name} lists")
                return
        if cache.length("key") + cache.length("rejects/key") != len(entries):
            yield Problem(path, "two of its volumes hold the same key", partial=True)
        elif cache.rows_digest() != file_digest(entries) or cache.rejects_digest() != all_rejects_digest(entries):
            yield Problem(path, "its volumes do not have the digest that it was written with", partial=True)
        if wrong := shows_otherwise(cache):
            text = "it shows other programs something else than its volumes hold"
            yield Problem(path, f"{text}, in {', '.join(wrong)}", partial=True)


def _check_contents(to_read: dict[Path, str], record: Record) -> Iterator[Problem]:
    """Problems of the rows in files that are not known to be sound; those without any are recorded."""
    files = [path for path, digest in to_read.items() if not record.holds(path, digest)]
    states = [path.stat() for path in files]
    for path, state, problems in zip(files, states, over_processes(_content, files), strict=True):
        yield from problems
        if not problems:
            record.add(path, to_read[path], state)


def _content(path: Path) -> list[Problem]:
    """As `check_content`, in any process."""
    try:
        return check_content(path)
    except UserError as fault:
        return [_unopened(path, fault)]


def _unopened(path: Path, fault: UserError) -> Problem:
    if isinstance(fault, DamagedError):
        return Problem(path, f"cannot be opened ({fault})")
    return Problem(path, str(fault).removeprefix(f"{path}: "), fatal=False, unread=True)


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


def check_shards(folder: Path, record: Record | None = None) -> Iterator[Problem]:
    """Tars that differ from the index, or are not in it; those that `record` trusts are not read again."""
    record = record or Record(folder, everything=True)
    if not folder.exists():
        return
    path = folder / "index.json"
    try:
        provenance, listed = index.parse_index(read_plain(path) if path.exists() else b"", str(folder))
    except OSError as error:
        yield _unread(path, error)
        return
    except UserError as fault:
        yield Problem(path, str(fault).removeprefix(f"{path}: "))
        return
    parents = provenance.get("parents")
    for parent, made_from in parents.items() if isinstance(parents, dict) else ():
        cache = folder.parent / f"{parent}.h5"
        if not cache.exists():
            yield Problem(cache, "is missing, but the shards were made from it", fatal=False)
        elif _rows_digest(cache) not in ("", made_from):
            yield Problem(path, f"was made from other rows than {cache} holds", fatal=False)
    known = {folder / shard.name: shard for shard in listed}
    files = [path for path in known if not (path.exists() and record.holds(path, known[path].sha256))]
    states = [path.stat() if path.exists() else None for path in files]
    for path, state, problem in zip(files, states, over_processes(partial(_check_shard, known), files), strict=True):
        if problem:
            yield problem
        elif state:
            record.add(path, known[path].sha256, state)
    found = (path for path in folder.glob("*.tar") if ours.is_shard_name(path.name) and ours.is_shard(path))
    strays = set(found) - known.keys()
    yield from (Problem(stray, "not in index.json") for stray in sorted(strays))


def _rows_digest(path: Path) -> str:
    """The digest of a cache's rows; "" where it cannot be read, which is another problem."""
    try:
        with Cache(path) as cache:
            return cache.rows_digest()
    except UserError:
        return ""


def _check_shard(known: dict[Path, index.Shard], path: Path) -> Problem | None:
    shard = known[path]
    try:
        if not path.exists():
            return Problem(path, "missing, but index.json lists it")
        if (size := path.stat().st_size) != shard.bytes:
            return Problem(path, f"{size} bytes, but index.json says {shard.bytes}")
        if hashing.sha256(path) != shard.sha256:
            return Problem(path, "its sha256 is not the one in index.json")
    except OSError as error:
        return _unread(path, error)
    return None


def _unread(path: Path, error: OSError) -> Problem:
    text = str(read_error(error.errno or errno.EIO, path)).removeprefix(f"{path}: ")
    return Problem(path, text, fatal=False, unread=True)
