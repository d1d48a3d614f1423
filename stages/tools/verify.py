"""Checks every cache file, part and shard against its checksums, and the caches of a collection against each other."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline import ours
from pipeline.caches.digests import Index
from pipeline.caches.failures import DamagedError
from pipeline.caches.merge import compact
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Entry, Layout
from pipeline.caches.volume import Head
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError, printable
from pipeline.files import move_aside, read_lines, sweep
from pipeline.locks import lock, locked, reading
from pipeline.progress import say
from pipeline.runner.inputs import read_sources
from pipeline.verification.record import Record
from pipeline.verification.rows import Problem, readable
from stages.portraits import kept
from stages.preprocess import chain
from stages.preprocess.chain import Wanted
from stages.tools.verify_checks import check_collection, check_shards

QUALITY = "quality"  # the caches of the portraits that were measured last


def run(
    ctx: Context, *, repair: bool = False, sources: bool = False, everything: bool = False, as_json: bool = False
) -> int:
    """Report every problem, one per line; 1 if there are any left. With `as_json` print them as JSON as well.

    `sources` reads all of the user's images, `everything` all files of the cache; without them those that look
    unchanged are taken to be.
    `repair` removes just what is bad (rows; a file that HDF5 itself cannot open is moved aside) and what killed runs
    left half-written, and recomputes only that. Raises: UserError when it would have to without knowing enough.
    """
    with lock(ctx.cache, "verify --repair") if repair else reading(ctx.cache):
        problems = check(ctx, sources, everything)
        if repair:
            _refuse_unread(problems)
            remove(ctx, problems)
    left = problems
    checked = f"{ctx.cache}: {len(problems)} problems"
    if not problems:
        say(f"{checked}; all checksums hold")
    elif not repair:
        say(f"{checked}; run `hypernst verify --repair` to recompute only what is bad")
    else:
        chain.rebuild(ctx, _wanted([p for p in problems if not p.path.is_relative_to(ctx.cache / QUALITY)]))
        say(f"{checked} repaired; checking again")
        with reading(ctx.cache):
            left = check(ctx, sources, everything)
        measured = any(p.path.is_relative_to(ctx.cache / QUALITY) for p in left)
        way_out = "; `hypernst quality` recomputes what it needs" * measured
        say(f"{ctx.cache}: {len(left)} problems left{way_out}" if left else f"{ctx.cache}: all checksums hold")
    if as_json:
        told = {"cache": ctx.cache, "repaired": repair, "problems": list(map(asdict, problems)), "left": len(left)}
        print(json.dumps(told, indent=1, default=str))
    return 1 if left else 0


def check(ctx: Context, sources: bool = False, everything: bool = False) -> list[Problem]:
    """Every problem of the caches and shards; each is reported at once.

    Files that were found sound before and look unchanged are not read again, but with `everything`.
    """
    problems = []
    record = Record(ctx.cache, everything=everything)
    caches = [check_collection(ctx.cache / name, ctx.limit, record) for name in (*COLLECTIONS, ours.DIRECTIONS)]
    caches += [check_collection(ctx.cache / QUALITY / name, record=record) for name in COLLECTIONS]
    caches += [check_collection(folder, record=record) for folder in ours.portraits(ctx.cache)]
    caches += [check_sources(ctx, name, sources) for name in COLLECTIONS]
    caches += [check_rejects(ctx.cache / name) for name in COLLECTIONS]
    try:
        for problem in itertools.chain(*caches, check_shards(ctx.shards, record)):
            say(str(problem))
            problems.append(problem)
    finally:
        record.save()
    if trusted := str(record):
        say(trusted)
    return problems


def check_sources(ctx: Context, collection: str, read: bool) -> Iterator[Problem]:
    """Files that differ from what images.h5 was made from. It says how many were not read.

    Those that look changed are read, with `read` all of them.
    """
    path, place = ctx.file(collection, "images"), ctx.source(collection)
    if not path.exists():
        return
    try:
        with Cache(path) as cache:
            made_of = Index.union([volume.head().inputs for volume in cache.volumes()])
        inputs = read_sources(collection, ctx, [made_of], trust=not read)
    except DamagedError:
        return  # told already
    except UserError as fault:
        say(f"{collection}: the user's images were not compared with the cache ({fault})")
        return
    there = inputs.input_digests.common(made_of)
    now, then = np.split(there.digests, 2, axis=1)
    if changed := [name.decode() for name in there.names[(now != then).any(1)].tolist()]:
        yield Problem(path, f"was made from other files than {place} holds; run `hypernst align`", changed, fatal=False)
    unread = len(there) - len(inputs.fingerprints.news)
    if unread > 0 and not read:
        say(
            f"{place}: {unread} files are taken to be unchanged, as their sizes, times and inodes are; "
            "`hypernst verify --sources` reads them"
        )


def check_rejects(folder: Path) -> Iterator[Problem]:
    """Caches whose rejects the collection's rejects.jsonl does not list."""
    try:
        rows = read_lines(folder / "rejects.jsonl")
    except UserError as fault:
        say(str(fault))
        return
    listed = {tuple(str(row.get(name)) for name in ("stage", "key", "reason")) for row in rows}
    for path in sorted(folder.glob("*.h5")):
        with contextlib.suppress(UserError), Cache(path) as cache:  # what cannot be read is told elsewhere
            stage = cache.provenance.get("stage")
            rejects = [entry for volume in cache.volumes() for entry in volume.reject_entries().items()]
            lost = [key for key, entry in rejects if (str(stage), key, printable(entry.reason)) not in listed]
            if lost:
                yield Problem(path, "rejects.jsonl does not list what it rejected", lost, fatal=False)


def _refuse_unread(found: list[Problem]) -> None:
    """Raises: UserError for the first file of which nothing is known: what depends on it cannot be judged either."""
    for problem in found:
        if problem.unread:
            raise UserError(f"{problem.path}: {problem.text}; nothing was repaired or removed")


def remove(ctx: Context, found: list[Problem]) -> None:
    """Move damaged files of ours aside, or rewrite them without the bad rows; sweep up after killed runs."""
    portraits = {p.path.parent for p in found} & set(ours.portraits(ctx.cache))
    for folder in sorted(portraits):  # computed again when the picture is next used
        damaged = {p.path for p in found if p.path.parent == folder and p.fatal and not p.keys}
        with locked(folder.parent / ours.LOCK):
            kept.remove(folder, but=damaged)
            aside = [move_aside(path).name for path in sorted(damaged) if os.path.lexists(path)]
        say(f"{folder}: removed{', but for what was moved aside: ' if aside else ''}{', '.join(aside)}")
    bad: dict[Path, set[str]] = {}  # of caches that lose rows or volumes: the keys of the rows
    for path in sorted({p.path for p in found if p.fatal and p.path.parent not in portraits}):
        problems = [p for p in found if p.path == path and p.fatal]
        owner = _owner(path)
        if path.parent == ctx.shards or any(not p.keys and not p.partial for p in problems):
            if os.path.lexists(path):
                say(f"{path}: moved aside as {move_aside(path).name}; remove that when nothing in it is wanted")
            if owner != path:
                bad.setdefault(owner, set())
        else:
            bad.setdefault(owner, set()).update(key for p in problems for key in p.keys)
    for path, keys in bad.items():
        if path.exists():
            _drop(path, keys)
    for folder in ours.folders(ctx.cache):
        sweep(folder)
        if folder.suffix in ours.HOLDS and not any(folder.iterdir()):
            folder.rmdir()


def _wanted(problems: list[Problem]) -> Wanted:
    """What has to be recomputed: (cache or "shards", collection) -> its keys, or None where they are not known."""
    wanted: Wanted = {}
    for problem in problems:
        name, folder = _cache_name(problem.path), problem.path.parent
        collection = (folder.parent if folder.suffix in ours.HOLDS else folder).name
        keys = {problem.path.name} if name == "shards" else set(problem.keys)
        former = wanted.get((name, collection), set())
        if ours.PORTRAIT.fullmatch(collection):
            continue
        wanted[name, collection] = None if former is None or not keys else former | keys
    return wanted


def _owner(path: Path) -> Path:
    """The cache file that lists a volume; any other file itself."""
    main = path.parent.with_suffix(".h5")
    return main if path.parent.suffix == ".volumes" and main.exists() else path


def _drop(path: Path, keys: set[str]) -> None:
    """Rewrite a cache without the rows of `keys`, and without volumes and rows that cannot be read."""
    entries: dict[str, Entry] = {}
    whole, width = dict[int, Head](), 1
    with Cache(path) as cache:
        for number in range(len(cache.files)):
            try:
                volume = cache.volume(number)
            except DamagedError:
                continue
            there, problems = readable(volume)
            held = {key: e._replace(file=number) for key, e in there.items() if key not in keys}
            if cache.listed and not problems and len(held) == len(there):
                whole[number] = volume.head()
            entries |= held
            width = volume.width
    compact(path, cache.files, entries, Layout(cache.columns, width, cache.provenance), kept=whole)


def _cache_name(path: Path) -> str:
    """`images` for images.h5, and for a part or a volume of it; `shards` for any of them."""
    if path.suffix != ".h5":
        return "shards"
    return path.parent.stem if path.parent.suffix in ours.HOLDS else path.stem
