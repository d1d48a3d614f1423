"""Finds what a stage has to do: which inputs exist, which rows are valid, and why the others are stale.

A row is valid as long as two things are unchanged since it was computed: the recipe of its stage (version, parameters,
weights, columns, schema), and its inputs (the digest of each parent's row, or of the user's file).
"""

import functools
import itertools
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import __version__, libraries
from pipeline.caches import volumes
from pipeline.caches import writer as parts
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Entry
from pipeline.caches.volume import Volume
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.hashing import digest
from pipeline.runner.recipe import change
from pipeline.runner.spec import StageSpec
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.reader import UNREADABLE, Reader, Source, reading_order
from pipeline.sources.scan import scan
from pipeline.sources.walk import LeftOut


@dataclass
class Inputs:
    """The inputs of a stage.

    `input_digests[key]` is the row digests of its parents in order of their names, joined; None when a file is not
    read yet. `refused` maps the user's files that are already rejects to the reason. `firsts` maps the content of the
    other files, where it is known, to the first key with this content. `left` counts what else
    the user's folder holds.
    """

    input_digests: dict[str, bytes | None]
    sources: dict[str, Source]
    parents: dict[str, str]  # parent -> digest of all its rows
    fingerprints: Fingerprints
    refused: dict[str, str] = field(default_factory=dict)
    firsts: dict[bytes, str] = field(default_factory=dict)
    left: LeftOut = field(default_factory=LeftOut)

    def duplicate(self, key: str, content: bytes) -> str:
        """Why the file `key` is refused: an earlier key has the same content; "" if it is the first one."""
        first = self.firsts.get(content, key)
        if first >= key:
            self.firsts[content] = key
            return ""
        return f"the same file as {self.sources[first].path!r}"


@dataclass
class Plan:
    """The state of one cache file compared with its inputs.

    `entries` are the valid rows and rejects; their `file` counts in `files`. `wanted` are the keys within the limit,
    `todo` those of them without an entry, `fresh` the number of these that were never computed. `stale` counts the
    stale rows by cause. `renamed` maps the keys whose rows another key had before to the user's path now ("" for a
    stage with parents): the content is the same, so nothing is recomputed. `dirty` means that the cache must be
    rewritten, but for those of its `files` that are `kept`: all that they hold is valid and has no other name.
    """

    path: Path
    inputs: Inputs
    files: list[Path]
    entries: dict[str, Entry]
    wanted: list[str]
    todo: list[str]
    stale: Counter[str]
    renamed: dict[str, str]
    fresh: int
    dirty: bool
    kept: set[int]

    @property
    def cached(self) -> int:
        """The number of wanted keys with a row."""
        return sum(key in self.entries and self.entries[key].row >= 0 for key in self.wanted)

    @property
    def rejected(self) -> int:
        """The number of wanted keys with a reject."""
        return sum(key in self.entries and self.entries[key].row < 0 for key in self.wanted)


def survey(
    stage: StageSpec, collection: str, ctx: Context, retry: bool = False, only: Collection[str] | None = None
) -> Plan:
    """Compare a stage's cache file and parts with its inputs.

    `retry` drops the rejects, so that they are recomputed; `only` limits `todo` to these keys.
    Raises: UserError(2) when a parent cache is missing; UserError when a file is damaged.
    """
    path = ctx.file(collection, stage.output)
    opened, own = _opened(path)
    cached_keys = set().union(*(file.entries for file in opened))
    inputs = _inputs(stage, collection, ctx, cached_keys)

    entries: dict[str, Entry] = {}
    causes: dict[str, str] = {}  # a later file replaces what an earlier one says about a key
    others: dict[str, Entry] = {}  # made by this recipe, but not of what their keys stand for now
    for file in opened:
        recipe_change = change(file.provenance, stage)
        for key, entry in file.entries.items():
            cause = recipe_change
            if not recipe_change and inputs.input_digests.get(key) != entry.inputs:
                cause = _input_cause(stage, key, entry, inputs)
                others[key] = entry
            says_the_same = key in entries and entries[key][2:] == entry[2:]
            if not cause and not (retry and entry.row < 0) and not says_the_same:
                entries[key] = entry
            causes[key] = cause
    renamed = _renamed(inputs, entries, others, retry)
    entries |= {key: others[former] for key, former in renamed.items()}
    known = entries.keys() | (set(renamed.values()) - inputs.input_digests.keys())
    stale = Counter(cause for key, cause in causes.items() if cause and key not in known)
    wanted = list(itertools.islice(sorted(inputs.input_digests), ctx.limit))
    todo = [key for key in wanted if key not in entries and (only is None or key in only)]
    if inputs.sources:
        todo.sort(key=lambda key: reading_order(inputs.sources[key]))
    held = Counter(entry.file for key, entry in entries.items() if key not in renamed)
    kept = {n for n in range(own) if held[n] == len(opened[n].entries) and not change(opened[n].provenance, stage)}
    dirty = not own or len(kept) < own or any(entry.file not in kept for entry in entries.values())
    fresh = sum(key not in causes for key in todo)
    paths = {key: inputs.sources[key].path if key in inputs.sources else "" for key in renamed}
    return Plan(path, inputs, [f.path for f in opened], entries, wanted, todo, stale, paths, fresh, dirty, kept)


def _inputs(stage: StageSpec, collection: str, ctx: Context, cached_keys: set[str]) -> Inputs:
    if stage.numbered:
        keys = (f"{number:09}" for number in range(stage.numbered))
        return Inputs({key: digest(key.encode()) for key in keys}, {}, {}, Fingerprints(None))
    return _join(stage, collection, ctx) if stage.parents else read_sources(collection, ctx, cached_keys)


def _renamed(inputs: Inputs, entries: dict[str, Entry], others: dict[str, Entry], retry: bool) -> dict[str, str]:
    """For keys without an entry, a key among `others` with the very same inputs: a row depends on nothing else."""
    by_inputs = {
        entry.inputs: key
        for key, entry in others.items()
        if entry.inputs != UNREADABLE and not (retry and entry.row < 0)
    }
    if not by_inputs:
        return {}
    lacking = ((key, made) for key, made in inputs.input_digests.items() if made and key not in entries)
    return {key: by_inputs[made] for key, made in lacking if made in by_inputs}


def is_settled(stage: StageSpec, collection: str, ctx: Context) -> bool:
    """Whether nothing is to do, judged by the digests of whole files only. If False, `survey` may still find no work.

    Raises: UserError when a file is damaged.
    """
    path = ctx.file(collection, stage.output)
    sources = [ctx.file(collection, parent) for parent in sorted(stage.parents)]
    if not sources or ctx.limit is not None or parts.listed(path) or not all(f.exists() for f in (path, *sources)):
        return False
    with ExitStack() as stack:
        output, *caches = (stack.enter_context(Cache(file)) for file in (path, *sources))
        digests = {parent: cache.rows_digest() for parent, cache in zip(sorted(stage.parents), caches, strict=True)}
        if change(output.provenance, stage) or output.provenance.get("parents") != digests:
            return False
        shared = functools.reduce(_common, (cache.key_array() for cache in caches))
        # One row or reject per shared key.
        return len(output) + output.length("rejects/key") == len(shared) and all(f.exists() for f in output.files)


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a if np.array_equal(a, b) else np.intersect1d(a, b)


def provenance(stage: StageSpec, ctx: Context, inputs: Inputs) -> dict[str, Any]:
    """The provenance that a cache file stores: how it was computed. Only the recipe in it is ever compared."""
    more = {"program": __version__, "profile": ctx.profile.name, "libraries": libraries()}
    return {**stage.recipe(), "parents": inputs.parents, **more}


class _File(NamedTuple):
    """What a file says of its rows; the `file` of its entries is its place among all."""

    path: Path
    provenance: dict[str, Any]
    entries: dict[str, Entry]


def _opened(path: Path) -> tuple[list[_File], int]:
    """The files of a cache with its parts, oldest first, and how many of them are the cache itself.

    Where its own file was lost, the volumes that it listed are read as parts are.
    """
    files: list[_File] = []
    if path.exists():
        with Cache(path) as cache:
            files = [_File(v.path, v.provenance, v.entries(n)) for n, v in enumerate(cache.volumes())]
    own = len(files)
    for file in [*parts.listed(path), *(volumes.there(path) if not own else ())]:
        with Volume(file) as volume:
            files.append(_File(file, volume.provenance, volume.entries(len(files))))
    return files, own


def read_sources(collection: str, ctx: Context, cached_keys: set[str], *, trust: bool = True) -> Inputs:
    """The user's files. Only those with a row or a reject are read here, and only if they look changed.

    Where rows have lost their files, new files of the same size are read as well: they may be these under other names.
    With `trust` False all files with a row or a reject are read, whatever they look like.
    """
    notes = ctx.cache / collection / ".sources.json" if trust else None
    fingerprints = Fingerprints(notes, ctx.source(collection))
    inputs = Inputs({}, {}, {}, fingerprints)
    sources = scan(ctx.source(collection), fingerprints, _outside(collection, ctx), inputs.left)
    reader = Reader()
    known = {s.key: fingerprints.get(s) for s in sources}
    lost = fingerprints.sizes(cached_keys - {s.key for s in sources})
    changed = [
        s
        for s in sources
        if (s.key in cached_keys or s.size in lost or None in lost) and not s.problem and known[s.key] is None
    ]
    reread = {s.key: fingerprints.read(s, reader) for s in sorted(changed, key=reading_order)}
    for source in sources:  # in order of key, so that the first of two equal files wins
        key = source.key
        inputs.sources[key] = source
        content = reread.get(key) or known[key]
        why = source.problem
        if content is not None and content != UNREADABLE:
            why = why or inputs.duplicate(key, content)
        if why:
            inputs.refused[key], content = why, refusal(content or UNREADABLE, why)
        inputs.input_digests[key] = content
    return inputs


def _outside(collection: str, ctx: Context) -> dict[Path, str]:
    """Places that are not read where they lie in the folder of a collection, and what they are."""
    others = {ctx.source(name): f"the {name} images" for name in COLLECTIONS if name != collection}
    return others | {ctx.cache: "the cache folder", ctx.run: "the run folder"}


def refusal(content: bytes, reason: str) -> bytes:
    """The input digest of a refused file: its reject is valid as long as content and reason are the same."""
    return digest(b"refused", content, reason.encode())


def _join(stage: StageSpec, collection: str, ctx: Context) -> Inputs:
    """The inputs of a stage with parents: the keys that all parents have a row for."""
    parent_digests = []
    parents = {}
    for parent in sorted(stage.parents):
        path = ctx.file(collection, parent)
        if not path.exists():
            command = stage.producers.get(parent, parent)
            raise UserError(f"{path}: missing, but stage {stage.name} reads it; run `hypernst {command}` first", 2)
        with Cache(path) as cache:
            parent_digests.append(cache.digests())
            parents[parent] = cache.rows_digest()
    joined = parent_digests[0]
    for digests in parent_digests[1:]:
        joined = {key: joined[key] + digests[key] for key in joined.keys() & digests.keys()}
    return Inputs({**joined}, {}, parents, Fingerprints(None))


def _input_cause(stage: StageSpec, key: str, entry: Entry, inputs: Inputs) -> str:
    """How the inputs of an entry changed since it was computed; "" if they did not."""
    names = sorted(stage.parents) or ["source"]
    if key not in inputs.input_digests:
        return f"input gone ({' or '.join(names)})"
    now = inputs.input_digests[key] or b""
    if now == entry.inputs:
        return ""
    changed = [n for i, n in enumerate(names) if now[16 * i : 16 * i + 16] != entry.inputs[16 * i : 16 * i + 16]]
    return f"input changed ({', '.join(changed)})"
