"""Finds what a stage has to do: which inputs exist, which rows are valid, and why the others are stale.

A row is valid as long as two things are unchanged since it was computed: the recipe of its stage (version, parameters,
weights, columns, schema), and its inputs (the digest of each parent's row, or of the user's file).
"""

import functools
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import __version__, libraries
from pipeline.caches import volumes
from pipeline.caches import writer as parts
from pipeline.caches.digests import Index
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Entry, Layout
from pipeline.caches.volume import Head, Volume
from pipeline.context import Context
from pipeline.runner.inputs import Inputs, look_again, of_stage
from pipeline.runner.recipe import change, differs_in_fallback
from pipeline.runner.spec import Fallback, StageSpec
from pipeline.sources.reader import UNREADABLE, reading_order


@dataclass
class _File:
    """A file of rows. The `file` of its entries is its `number` among all files of a plan."""

    path: Path
    number: int
    provenance: dict[str, Any]
    head: Head

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """All rows and rejects."""
        with Volume(self.path) as volume:
            return volume.entries(self.number)

    def decided(self, fallback: Fallback) -> set[str]:
        """The keys of the rows and rejects that the parameter of a fallback decides."""
        with Volume(self.path) as volume:
            values = volume.block(fallback.column, 0, len(volume))
            rows = {key.decode() for key in volume.key_array()[values == 0].tolist()}
        return rows | {key for key, entry in self.head.rejects.items() if entry.reason.startswith(fallback.reason)}


class _Whole(NamedTuple):
    """The own files of which all is valid, their keys S88 [N], sorted, and the keys of inputs that are not in them.

    They have no key in common with another file.
    """

    files: list[_File]
    names: np.ndarray
    without: list[str]


@dataclass
class Plan:
    """The state of one cache file compared with its inputs.

    `files` are those of the cache, its `own`, and parts; `kept` are the own ones, by number, of which all is valid and
    has no other name, those of `whole` and others. `entries` are the valid rows and rejects of the rest. `wanted` is
    the number of keys within the limit; `cached` of them have a row, `rejected` a reject, the others are `todo`;
    `fresh` were never computed.
    `rejects` are all that are valid. `stale` counts the stale rows by cause. `renamed` maps the keys whose rows another
    key had before to the user's path now ("" for a stage with parents): the content is the same, so nothing is
    recomputed. `dirty` means that the cache must be written, but for what is `kept`.
    """

    path: Path
    inputs: Inputs
    files: list[Path]
    own: list[_File]
    entries: dict[str, Entry]
    rejects: dict[str, Entry]
    wanted: int
    cached: int
    rejected: int
    todo: list[str]
    stale: Counter[str]
    renamed: dict[str, str]
    fresh: int
    dirty: bool
    kept: dict[int, Head]
    whole: _Whole


def survey(
    stage: StageSpec, collection: str, ctx: Context, retry: bool = False, only: Collection[str] | None = None
) -> Plan:
    """Compare a stage's cache file and parts with its inputs.

    `retry` drops the rejects, so that they are recomputed; `only` limits `todo` to these keys.
    Raises: UserError(2) when a parent cache is missing; UserError when a file is damaged.
    """
    path = ctx.file(collection, stage.output)
    own = _own(path)
    files = [*own, *_parts(path, len(own))]
    inputs = of_stage(stage, collection, ctx, [file.head.inputs for file in files])
    whole = _whole(stage, own, files, inputs.input_digests, retry)
    return _compare(stage, path, own, files, whole, inputs, ctx.limit, retry, only)


def survey_again(
    plan: Plan, stage: StageSpec, collection: str, ctx: Context, only: Collection[str] | None = None
) -> Plan:
    """The survey after `todo` was computed. Raises: UserError when a file is damaged."""
    files, digests = [*plan.own, *_parts(plan.path, len(plan.own))], plan.inputs.input_digests
    inputs = look_again(plan.inputs, plan.todo, collection, ctx, [file.head.inputs for file in files])
    # Only what was to be computed has other digests and new rows, unless all were judged anew.
    same = inputs.input_digests is digests
    whole = plan.whole if same else _whole(stage, plan.own, files, inputs.input_digests, False)
    return _compare(stage, plan.path, plan.own, files, whole, inputs, ctx.limit, False, only)


def _whole(stage: StageSpec, own: list[_File], files: list[_File], digests: Index, retry: bool) -> _Whole:
    """Which of the `own` among all `files` are compared no further; `retry` as in `survey`."""
    found = [f for f in own if not (change(f.provenance, stage) or (retry and f.head.rejects))]
    held = Index.union([file.head.inputs for file in found])
    if not digests.holds(held):
        found = [file for file in found if digests.holds(file.head.inputs)]
        held = Index.union([file.head.inputs for file in found])
    others = [file.head.inputs.names for file in files if file not in found]
    if len(shared := np.concatenate([held.repeated(), *others])) and (held.find(shared) >= 0).any():
        found = [file for file in found if (file.head.inputs.find(shared) < 0).all()]
        held = Index.union([file.head.inputs for file in found])
    without = np.ones(len(digests), bool)
    without[digests.find(held.names)] = False
    return _Whole(found, held.names, [name.decode() for name in digests.names[without].tolist()])


def _compare(
    stage: StageSpec,
    path: Path,
    own: list[_File],
    files: list[_File],
    whole: _Whole,
    inputs: Inputs,
    limit: int | None,
    retry: bool,
    only: Collection[str] | None,
) -> Plan:
    """The plan that follows from files of rows and inputs."""
    digests = inputs.input_digests
    changes = [change(file.provenance, stage) for file in files]
    decided: dict[int, set[str]] = {}
    for file in files:
        if stage.fallback and differs_in_fallback(file.provenance, stage):
            decided[file.number] = file.decided(stage.fallback)
    entries: dict[str, Entry] = {}
    causes: dict[str, str] = {}  # a later file replaces what an earlier one says about a key
    others: dict[str, Entry] = {}  # made by this recipe, but not of what their keys stand for now
    for file in (file for file in files if file not in whole.files):
        for key, entry in file.entries.items():
            cause = changes[file.number] if key in decided.get(file.number, (key,)) else ""
            if not cause and digests.get(key) != entry.inputs:
                cause = _input_cause(stage, key, entry, inputs)
                others[key] = entry
            says_the_same = key in entries and entries[key][2:] == entry[2:]
            if not cause and not (retry and entry.row < 0) and not says_the_same:
                entries[key] = entry
            causes[key] = cause
    lacking = [key for key in whole.without if key not in entries]
    renamed = _renamed(lacking, digests, others, retry)
    entries |= {key: others[former] for key, former in renamed.items()}
    known = entries.keys() | {former for former in renamed.values() if former not in digests}
    stale = Counter(cause for key, cause in causes.items() if cause and key not in known)

    wanted = digests.names[:limit]
    last = wanted[-1].decode() if len(wanted) else ""
    todo = [key for key in lacking if key <= last and key not in renamed and (only is None or key in only)]
    if inputs.sources:
        todo.sort(key=lambda key: reading_order(inputs.sources[key]))
    rejects = {key: entry for file in whole.files for key, entry in file.head.rejects.items()}
    rejects |= {key: entry for key, entry in entries.items() if entry.row < 0}
    there = int((whole.names <= last.encode()).sum()) + sum(key <= last for key in entries)
    rejected = sum(key <= last for key in rejects)

    counts = Counter(entry.file for key, entry in entries.items() if key not in renamed)
    kept = {
        f.number: f.head for f in own if f in whole.files or (counts[f.number] == len(f.head) and not changes[f.number])
    }
    return Plan(
        path=path,
        inputs=inputs,
        files=[file.path for file in files],
        own=own,
        entries=entries,
        rejects=rejects,
        wanted=len(wanted),
        cached=there - rejected,
        rejected=rejected,
        todo=todo,
        stale=stale,
        renamed={key: inputs.sources[key].path if key in inputs.sources else "" for key in renamed},
        fresh=sum(key not in causes for key in todo),
        dirty=not own or len(kept) < len(own) or any(entry.file not in kept for entry in entries.values()),
        kept=kept,
        whole=whole,
    )


def _renamed(lacking: list[str], digests: Index, others: dict[str, Entry], retry: bool) -> dict[str, str]:
    """For keys without an entry, a key among `others` with the very same inputs: a row depends on nothing else."""
    by_inputs = {
        entry.inputs: key
        for key, entry in others.items()
        if entry.inputs != UNREADABLE and not (retry and entry.row < 0)
    }
    if not by_inputs:
        return {}
    return {key: by_inputs[made] for key in lacking if (made := digests[key]) in by_inputs}


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


def layout(stage: StageSpec, ctx: Context, inputs: Inputs) -> Layout:
    """The layout of a stage's cache files. Of their provenance only the recipe is ever compared."""
    more = {"program": __version__, "profile": ctx.profile.name, "libraries": libraries()}
    width = max(1, len(stage.parents))  # one input per parent, or one file
    return Layout(stage.columns, width, {**stage.recipe(), "parents": inputs.parents, **more})


def _own(path: Path) -> list[_File]:
    """The volumes of a cache file, or itself."""
    if not path.exists():
        return []
    with Cache(path) as cache:
        return [_file(volume, number) for number, volume in enumerate(cache.volumes())]


def _parts(path: Path, own: int) -> list[_File]:
    """The parts of a cache file, oldest first; where its own file was lost, the volumes that it listed as well."""
    found = []
    for number, file in enumerate([*parts.listed(path), *(volumes.there(path) if not own else ())], own):
        with Volume(file) as volume:
            found.append(_file(volume, number))
            found[-1].entries = volume.entries(number)
    return found


def _file(volume: Volume, number: int) -> _File:
    return _File(volume.path, number, volume.provenance, volume.head(number))


def _input_cause(stage: StageSpec, key: str, entry: Entry, inputs: Inputs) -> str:
    """How the inputs of an entry changed since it was computed; "" if they did not."""
    names = sorted(stage.parents) or ["source"]
    if key not in inputs.input_digests:
        return f"input gone ({' or '.join(names)})"
    now = inputs.input_digests[key]
    if now == entry.inputs:
        return ""
    changed = [n for i, n in enumerate(names) if now[16 * i : 16 * i + 16] != entry.inputs[16 * i : 16 * i + 16]]
    return f"input changed ({', '.join(changed)})"
