"""What a stage has to do: which inputs exist, which rows still hold, what made the others stale.

A row holds while its stage's recipe (version, parameters, weights, columns, schema) and its inputs (the digest of each
parent's row, or of the user's file) are what they were when it was made.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import __version__
from pipeline.caches import writer as parts
from pipeline.caches.reader import Cache, Entry
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.hashing import digest
from pipeline.runner.spec import StageSpec
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.reader import UNREADABLE, Reader, Source, reading_order
from pipeline.sources.scan import scan


@dataclass
class Inputs:
    """The inputs of a stage: `input_digests[key]` joins its parents' row digests, by name; None: not read so far.

    Of the user's files, `refused` are those that are rejects already, with the reason; `firsts` maps the content of
    the others, as far as it is known, to its first key.
    """

    input_digests: dict[str, bytes | None]
    sources: dict[str, Source]
    parents: dict[str, str]  # parent -> digest of the whole file
    fingerprints: Fingerprints
    refused: dict[str, str] = field(default_factory=dict)
    firsts: dict[bytes, str] = field(default_factory=dict)

    def duplicate(self, key: str, content: bytes) -> str:
        """Why the file `key` is refused, having this content: an earlier key has the same; "" if it is the first."""
        first = self.firsts.get(content, key)
        if first >= key:
            self.firsts[content] = key
            return ""
        return f"the same file as {self.sources[first].path!r}"


@dataclass
class Plan:
    """The state of one cache file against its inputs.

    `entries` are the rows and rejects that hold, of `files` by number; `wanted` the keys within the limit; `todo` those
    without an entry. `stale` counts, by cause, the rows that hold no longer. `dirty`: the file must be rewritten.
    """

    path: Path
    inputs: Inputs
    files: list[Path]
    entries: dict[str, Entry]
    wanted: list[str]
    todo: list[str]
    stale: Counter[str]
    fresh: int
    dirty: bool

    @property
    def cached(self) -> int:
        """Wanted keys with a row."""
        return sum(key in self.entries and self.entries[key].row >= 0 for key in self.wanted)

    @property
    def rejected(self) -> int:
        """Wanted keys with a reject."""
        return sum(key in self.entries and self.entries[key].row < 0 for key in self.wanted)


def survey(
    stage: StageSpec, collection: str, ctx: Context, retry: bool = False, only: Collection[str] | None = None
) -> Plan:
    """Compare a stage's cache file and parts with its inputs; `retry` forgets rejects, `only` leaves others undone.

    Raises: UserError(2) when a parent cache is missing; UserError when a file is damaged.
    """
    path = ctx.file(collection, stage.output)
    files = [path] * path.exists() + parts.listed(path)
    opened = [_read(file, number) for number, file in enumerate(files)]
    known = set().union(*(entries for _, entries in opened))
    inputs = _sources(collection, ctx, known) if not stage.parents else _join(stage, collection, ctx)

    entries: dict[str, Entry] = {}
    causes: dict[str, str] = {}  # a later file's word on a key replaces an earlier one's
    for provenance, found in opened:
        changed = change(provenance, stage)
        for key, entry in found.items():
            cause = changed
            if not changed and inputs.input_digests.get(key) != entry.inputs:
                cause = _input_cause(stage, key, entry, inputs)
            if not cause and not (retry and entry.row < 0):
                entries[key] = entry
            causes[key] = cause
    stale = Counter(cause for key, cause in causes.items() if cause and key not in entries)
    wanted = list(itertools.islice(sorted(inputs.input_digests), ctx.limit))
    todo = [key for key in wanted if key not in entries and (only is None or key in only)]
    if not stage.parents:
        todo.sort(key=lambda key: reading_order(inputs.sources[key]))
    dirty = (
        len(files) != 1
        or files[0] != path
        or set(entries) != known
        or any(change(provenance, stage) for provenance, _ in opened)
    )
    fresh = sum(key not in causes for key in todo)
    return Plan(path, inputs, files, entries, wanted, todo, stale, fresh, dirty)


def is_settled(stage: StageSpec, collection: str, ctx: Context) -> bool:
    """Whether nothing is to do, as the digests of whole files tell; where they do not, `survey` may still find so.

    Raises: UserError when a file is damaged.
    """
    path = ctx.file(collection, stage.output)
    sources = [ctx.file(collection, parent) for parent in sorted(stage.parents)]
    if not sources or ctx.limit is not None or parts.listed(path) or not all(f.exists() for f in (path, *sources)):
        return False
    with ExitStack() as stack:
        own, *caches = (stack.enter_context(Cache(file)) for file in (path, *sources))
        made = {parent: cache.rows_digest() for parent, cache in zip(sorted(stage.parents), caches, strict=True)}
        if change(own.provenance, stage) or own.provenance.get("parents") != made:
            return False
        shared = functools.reduce(_common, (cache.key_array() for cache in caches))
        return len(own) + own.length("rejects/key") == len(shared)  # each of them was made from one of those


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a if np.array_equal(a, b) else np.intersect1d(a, b)


def change(provenance: dict[str, Any], stage: StageSpec) -> str:
    """How the recipe a file was made by differs from the stage's; "" if it does not."""
    recipe = stage.recipe()
    return difference({name: provenance.get(name) for name in recipe}, recipe)


def provenance(stage: StageSpec, ctx: Context, inputs: Inputs) -> dict[str, Any]:
    """What a cache file says about how it was made."""
    return {**stage.recipe(), "parents": inputs.parents, "program": __version__, "profile": ctx.profile.name}


def _read(path: Path, number: int) -> tuple[dict[str, Any], dict[str, Entry]]:
    with Cache(path) as cache:
        return cache.provenance, cache.entries(number)


def _sources(collection: str, ctx: Context, known: set[str]) -> Inputs:
    """The user's files; only those some row was made from are read here, and only if they look touched."""
    prints = Fingerprints(ctx.cache / collection / ".sources.json")
    inputs = Inputs({}, {}, {}, prints)
    found = scan(ctx.source(collection), prints)
    reader = Reader()
    touched = [s for s in found if s.key in known and not s.problem and prints.get(s) is None]
    again = {s.key: prints.read(s, reader) for s in sorted(touched, key=reading_order)}
    for source in found:  # in order of key, so that the first of two equal files wins
        key = source.key
        inputs.sources[key] = source
        content = again.get(key) or prints.get(source)
        why = source.problem
        if content is not None and content != UNREADABLE:
            why = why or inputs.duplicate(key, content)
        if why:
            inputs.refused[key], content = why, refusal(content or UNREADABLE, why)
        inputs.input_digests[key] = content
    return inputs


def refusal(content: bytes, reason: str) -> bytes:
    """What a refused file's reject is made from: it holds as long as the content and the reason do."""
    return digest(b"refused", content, reason.encode())


def _join(stage: StageSpec, collection: str, ctx: Context) -> Inputs:
    """The keys all parents have a row for."""
    found = []
    parents = {}
    for parent in sorted(stage.parents):
        path = ctx.file(collection, parent)
        if not path.exists():
            command = stage.producers.get(parent, parent)
            raise UserError(f"{path}: missing, but stage {stage.name} reads it; run `hypernst {command}` first", 2)
        with Cache(path) as cache:
            found.append(cache.digests())
            parents[parent] = cache.rows_digest()
    made = found[0]
    for rows in found[1:]:
        made = {key: made[key] + rows[key] for key in made.keys() & rows.keys()}
    return Inputs({**made}, {}, parents, Fingerprints(None))


def _input_cause(stage: StageSpec, key: str, entry: Entry, inputs: Inputs) -> str:
    """Why an entry's inputs no longer are what it was made from; "" if they are."""
    names = sorted(stage.parents) or ["source"]
    if key not in inputs.input_digests:
        return f"input gone ({' or '.join(names)})"
    now = inputs.input_digests[key] or b""
    if now == entry.inputs:
        return ""
    changed = [n for i, n in enumerate(names) if now[16 * i : 16 * i + 16] != entry.inputs[16 * i : 16 * i + 16]]
    return f"input changed ({', '.join(changed)})"


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """The settings that differ, as `params.patches 8 -> 4`; "" if none do."""
    out = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            out.append(difference(a, b, f"{prefix}{name}."))
        elif a != b:
            out.append(f"{prefix}{name} {_brief(a)} -> {_brief(b)}")
    return ", ".join(filter(None, out))


def _brief(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] + "…" if len(text) > 40 else text
