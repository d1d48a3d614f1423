"""Checks every cache file, part and shard against its checksums, and the caches of a collection against each other."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files, shards, store
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import Fault
from pipeline.lock import lock, sweep
from pipeline.plan import WRITERS
from pipeline.report import say
from pipeline.store import Cache, Entry

ROWS = 64  # checked at once


@dataclass
class Problem:
    """Something wrong with a file: its text for the user, and the keys it is about; no keys: the whole file.

    `fatal` is false when what it is about may hold again once something else is repaired.
    """

    path: Path
    text: str
    keys: list[str] = field(default_factory=list)
    fatal: bool = True

    def __str__(self) -> str:
        shown = ", ".join(self.keys[:5]) + (f" and {len(self.keys) - 5} more" if len(self.keys) > 5 else "")
        return f"{self.path}: {self.text}" + (f": {shown}" if self.keys else "")


def run(ctx: Context, *, repair: bool = False) -> int:
    """Report every problem, one a line; 1 if there are any left.

    `repair` removes just what is bad (rows, or a file that cannot be opened), so that the stages compute it again.
    """
    with lock(ctx.cache, "verify --repair") if repair else nullcontext():
        found = [p for collection in COLLECTIONS for p in check_collection(ctx.cache / collection)]
        found += check_shards(ctx.shards)
        for problem in found:
            say(str(problem))
        if repair:
            _repair(ctx, found)
    checked = f"{ctx.cache}: {len(found)} problems"
    if not found:
        say(f"{checked}; all checksums hold")
    elif repair:
        again = sorted({WRITERS.get(_cache_name(p.path), "shards") for p in found})
        say(f"{checked}, removed; run {', '.join(f'`hypernst {stage}`' for stage in again)} to compute them again")
    else:
        say(f"{checked}; `hypernst verify --repair` removes what is bad, so that the stages compute it again")
    return 1 if found and not repair else 0


def check_collection(folder: Path) -> Iterator[Problem]:
    """Every problem of one collection's caches and parts."""
    mains: dict[str, tuple[Cache, dict[str, Entry]]] = {}
    for path in [*sorted(folder.glob("*.h5")), *sorted(folder.glob("*.parts/*.h5"))]:
        try:
            with Cache(path) as cache:
                entries = cache.entries()
                yield from check_rows(cache)
        except Fault as fault:
            yield Problem(path, f"cannot be opened ({fault})")
            continue
        if path.parent == folder:
            mains[path.stem] = (cache, entries)
    for cache, entries in mains.values():
        yield from _check_parents(cache, entries, {name: found for name, (_, found) in mains.items()})


def check_rows(cache: Cache) -> Iterator[Problem]:
    """Rows with a bad checksum, by dataset, or whose content does not have the digest it should; keys out of order."""
    keys = cache.keys()
    if cache.path.parent.suffix != ".parts" and keys != sorted(set(keys)):
        yield Problem(cache.path, "keys are not sorted and unique")
    lengths = {name: len(cache.h5[name]) for name in (*cache.columns, "inputs", "digest")}
    if set(lengths.values()) != {len(keys)}:
        yield Problem(cache.path, f"datasets of unequal length: {lengths}, {len(keys)} keys")
        return
    digests = [e.digest for e in cache.entries().values() if e.row >= 0]
    bad: dict[str, list[str]] = {}
    for start in range(0, len(keys), ROWS):
        stop = min(start + ROWS, len(keys))
        for i in range(start, stop) if not _readable(cache, start, stop) else ():
            for name in cache.columns:
                if not _readable(cache, i, i + 1, name):
                    bad.setdefault(name, []).append(keys[i])
        broken = set().union(*bad.values())
        for i in range(start, stop):
            if keys[i] not in broken and store.row_digest(_row(cache, i)) != digests[i]:
                bad.setdefault("any (the row's digest differs)", []).append(keys[i])
    for name, which in bad.items():
        yield Problem(cache.path, f"dataset {name} is damaged at", which)


def check_shards(folder: Path) -> Iterator[Problem]:
    """Tars that differ from the index, or are not in it."""
    if not folder.exists():
        return
    try:
        data = (folder / "index.json").read_bytes() if (folder / "index.json").exists() else b""
        listed = shards.parse_index(data, str(folder))[1]
    except Fault as fault:
        yield Problem(folder / "index.json", str(fault))
        return
    for shard in listed:
        path = folder / shard.name
        if not path.exists():
            yield Problem(path, "missing, but index.json lists it")
        elif path.stat().st_size != shard.bytes:
            yield Problem(path, f"{path.stat().st_size} bytes, but index.json says {shard.bytes}")
        elif files.sha256(path) != shard.sha256:
            yield Problem(path, "its sha256 is not the one in index.json")
    for stray in sorted(set(folder.glob("*.tar")) - {folder / s.name for s in listed}):
        yield Problem(stray, "not in index.json")


def _check_parents(cache: Cache, entries: dict[str, Entry], mains: dict[str, dict[str, Entry]]) -> Iterator[Problem]:
    """Rows made from rows that their parent no longer holds."""
    for i, parent in enumerate(sorted(cache.provenance["parents"])):
        if parent not in mains:
            text = f"was made from {parent}.h5, which is missing or damaged"
            yield Problem(cache.path, text, sorted(entries), fatal=False)
            continue
        rows = mains[parent]
        gone = [k for k, e in entries.items() if k not in rows or rows[k].digest != e.inputs[16 * i:16 * i + 16]]
        if gone:
            yield Problem(cache.path, f"was made from other rows than {parent}.h5 holds, at", gone)


def _repair(ctx: Context, found: list[Problem]) -> None:
    """Remove whole files, or rewrite them without the bad rows."""
    for path in sorted({p.path for p in found}):
        problems = [p for p in found if p.path == path]
        if path.parent == ctx.shards:
            (ctx.shards / "index.json").unlink(missing_ok=True)  # so that it is packed anew
            path.unlink(missing_ok=True)
        elif any(not p.keys for p in problems):
            path.unlink(missing_ok=True)
        else:
            _drop(path, {key for p in problems for key in p.keys if p.fatal})
    for folder in [ctx.shards, *ctx.cache.glob("*/"), *ctx.cache.glob("*/*.parts")]:
        sweep(folder)


def _drop(path: Path, keys: set[str]) -> None:
    """Rewrite a cache file without the rows of `keys`."""
    with Cache(path) as cache:
        entries = {key: e for key, e in cache.entries().items() if key not in keys}
        width = cache.h5["inputs"].shape[1]
        store.compact(path, [path], entries, cache.columns, width, cache.provenance)


def _readable(cache: Cache, start: int, stop: int, name: str = "") -> bool:
    try:
        for column in [name] if name else cache.columns:
            cache.block(column, start, stop)
    except Fault:
        return False
    return True


def _row(cache: Cache, i: int) -> dict:
    return {name: cache.block(name, i, i + 1)[0] for name in cache.columns}


def _cache_name(path: Path) -> str:
    """`images` for images.h5 and for a part of it."""
    return path.parent.stem if path.parent.suffix == ".parts" else path.stem
