"""Checks every cache file, part and shard against its checksums, and the caches of a collection against each other."""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline import files, ours
from pipeline.caches import writer
from pipeline.caches.failures import DamagedError
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.files import move_aside, sweep
from pipeline.locks import lock, locked, reading
from pipeline.progress import say
from pipeline.runner.staleness import read_sources
from stages.preprocess import chain
from stages.preprocess.chain import Wanted
from stages.tools.verify_checks import Problem, check_collection, check_shards, readable

QUALITY = "quality"  # the caches of the portraits that were measured last


def run(ctx: Context, *, repair: bool = False, sources: bool = False, as_json: bool = False) -> int:
    """Report every problem, one per line; 1 if there are any left. With `as_json` print them as JSON as well.

    `sources` reads all of the user's images; without it those that look unchanged are taken to be.
    `repair` removes just what is bad (rows; a file that HDF5 itself cannot open is moved aside) and what killed runs
    left half-written, and recomputes only that. Raises: UserError when it would have to without knowing enough.
    """
    with lock(ctx.cache, "verify --repair") if repair else reading(ctx.cache):
        problems = check(ctx, sources)
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
            left = check(ctx, sources)
        measured = any(p.path.is_relative_to(ctx.cache / QUALITY) for p in left)
        way_out = "; `hypernst quality` recomputes what it needs" * measured
        say(f"{ctx.cache}: {len(left)} problems left{way_out}" if left else f"{ctx.cache}: all checksums hold")
    if as_json:
        told = {"cache": ctx.cache, "repaired": repair, "problems": list(map(asdict, problems)), "left": len(left)}
        print(json.dumps(told, indent=1, default=str))
    return 1 if left else 0


def check(ctx: Context, sources: bool = False) -> list[Problem]:
    """Every problem of the caches and shards; each is reported at once."""
    problems = []
    caches = [check_collection(ctx.cache / name, ctx.limit) for name in (*COLLECTIONS, ours.DIRECTIONS)]
    caches += [check_collection(ctx.cache / QUALITY / name) for name in COLLECTIONS]
    caches += [check_collection(folder) for folder in ours.portraits(ctx.cache)]
    caches += [check_sources(ctx, name, sources) for name in COLLECTIONS]
    for problem in itertools.chain(*caches, check_shards(ctx.shards)):
        say(str(problem))
        problems.append(problem)
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
            entries = cache.entries()
        inputs = read_sources(collection, ctx, set(entries), trust=not read)
    except DamagedError:
        return  # told already
    except UserError as fault:
        say(f"{collection}: the user's images were not compared with the cache ({fault})")
        return
    there = entries.keys() & inputs.input_digests.keys()
    if changed := sorted(key for key in there if inputs.input_digests[key] != entries[key].inputs):
        yield Problem(path, f"was made from other files than {place} holds; run `hypernst align`", changed, fatal=False)
    unread = len(there) - len(inputs.fingerprints.news)
    if unread > 0 and not read:
        say(
            f"{place}: {unread} files are taken to be unchanged, as their sizes, times and inodes are; "
            "`hypernst verify --sources` reads them"
        )


def _refuse_unread(found: list[Problem]) -> None:
    """Raises: UserError for the first file of which nothing is known: what depends on it cannot be judged either."""
    for problem in found:
        if problem.unread:
            raise UserError(f"{problem.path}: {problem.text}; nothing was repaired or removed")


def remove(ctx: Context, found: list[Problem]) -> None:
    """Move damaged files of ours aside, or rewrite them without the bad rows; sweep up after killed runs."""
    portraits = {p.path.parent for p in found} & set(ours.portraits(ctx.cache))
    for folder in sorted(portraits):  # computed again when the picture is next used
        with locked(folder.parent / ours.LOCK):
            files.remove(folder)
        say(f"{folder}: removed")
    for path in sorted({p.path for p in found if p.fatal and p.path.parent not in portraits}):
        problems = [p for p in found if p.path == path and p.fatal]
        if path.parent == ctx.shards or any(not p.keys and not p.partial for p in problems):
            if os.path.lexists(path):
                say(f"{path}: moved aside as {move_aside(path).name}; remove that when nothing in it is wanted")
        else:
            _drop(path, {key for p in problems for key in p.keys})
    for folder in ours.folders(ctx.cache):
        sweep(folder)
        if folder.suffix == ".parts" and not any(folder.iterdir()):
            folder.rmdir()


def _wanted(problems: list[Problem]) -> Wanted:
    """What has to be recomputed: (cache or "shards", collection) -> its keys, or None where they are not known."""
    wanted: Wanted = {}
    for problem in problems:
        name, folder = _cache_name(problem.path), problem.path.parent
        collection = (folder.parent if folder.suffix == ".parts" else folder).name
        keys = {problem.path.name} if name == "shards" else set(problem.keys)
        former = wanted.get((name, collection), set())
        if ours.PORTRAIT.fullmatch(collection):
            continue
        wanted[name, collection] = None if former is None or not keys else former | keys
    return wanted


def _drop(path: Path, keys: set[str]) -> None:
    """Rewrite a cache file without the rows of `keys` and without what cannot be read."""
    with Cache(path) as cache:
        entries = {key: e for key, e in readable(cache)[0].items() if key not in keys}
        writer.compact(path, [path], entries, cache.columns, cache.width, cache.provenance)


def _cache_name(path: Path) -> str:
    """`images` for images.h5 and for a part of it; `shards` for any of them."""
    if path.suffix != ".h5":
        return "shards"
    return path.parent.stem if path.parent.suffix == ".parts" else path.stem
