"""The inputs of a stage: the user's files, or the rows of its parents, each with the digest that a row depends on."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.caches.digests import Index
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.hashing import digest
from pipeline.runner.spec import StageSpec
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.reader import UNREADABLE, Reader, Source, looks_the_same, reading_order
from pipeline.sources.scan import LeftOut, scan


@dataclass
class Inputs:
    """The inputs of a stage.

    `input_digests[key]` is the row digests of its parents in order of their names, joined; b"" when a file is not
    read yet. `refused` maps the user's files that are already rejects to the reason. `firsts` maps the content of the
    other files, where it is known, to the first key with this content; `repeated` says whether one got another key
    there since `judge`. `contents` are the digests of the files' bytes, where they are known; UNREADABLE for one that
    cannot be read. `left` counts what else the user's folder holds.
    """

    input_digests: Index
    sources: dict[str, Source]  # sorted by key
    parents: dict[str, str]  # parent -> digest of all its rows
    fingerprints: Fingerprints
    refused: dict[str, str] = field(default_factory=dict)
    firsts: dict[bytes, str] = field(default_factory=dict)
    contents: dict[str, bytes | None] = field(default_factory=dict)
    repeated: bool = False
    left: LeftOut = field(default_factory=LeftOut)

    def duplicate(self, key: str, content: bytes) -> str:
        """Why the file `key` is refused: an earlier key has the same content; "" if it is the first one."""
        first = self.firsts.get(content, key)
        self.repeated |= first != key
        if first >= key:
            self.firsts[content] = key
            return ""
        return f"the same file as {self.sources[first].path!r}"

    def judge(self) -> None:
        """Set the digest of each file, and refuse those that are there twice."""
        self.refused, self.firsts = {}, {}
        digests = {}
        for key, source in self.sources.items():  # in order of key, so that the first of two equal files wins
            content, why = self.contents[key], source.problem
            if content is not None and content != UNREADABLE:
                why = why or self.duplicate(key, content)
            if why:
                self.refused[key], content = why, refusal(content or UNREADABLE, why)
            digests[key] = content or b""
        self.input_digests = Index.of(digests)
        self.repeated = False


def of_stage(stage: StageSpec, collection: str, ctx: Context, cached: Sequence[Index]) -> Inputs:
    """The inputs of a stage whose cache holds rows and rejects of the keys `cached`.

    Raises: UserError(2) when a parent cache is missing; UserError when a file is damaged.
    """
    if stage.numbered:
        keys = (f"{number:09}" for number in range(stage.numbered))
        return Inputs(Index.of({key: digest(key.encode()) for key in keys}), {}, {}, Fingerprints(None))
    return _join(stage, collection, ctx) if stage.parents else read_sources(collection, ctx, cached)


def read_sources(collection: str, ctx: Context, cached: Sequence[Index], *, trust: bool = True) -> Inputs:
    """The user's files. Only those with a row or a reject are read here, and only if they look changed.

    Where rows have lost their files, new files of the same size are read as well: they may be these under other names.
    With `trust` False all files with a row or a reject are read, whatever they look like.
    """
    notes = ctx.cache / collection / ".sources.json" if trust else None
    fingerprints = Fingerprints(notes, ctx.source(collection))
    inputs = Inputs(Index.of({}), {}, {}, fingerprints)
    found = scan(ctx.source(collection), fingerprints, _outside(collection, ctx), inputs.left)
    inputs.sources = {source.key: source for source in found}
    known = {name.decode() for keys in cached for name in keys.names.tolist()}
    lost = fingerprints.sizes(known - inputs.sources.keys())
    inputs.contents = {source.key: fingerprints.get(source) for source in found}
    unknown = [source for source in found if inputs.contents[source.key] is None and not source.problem]
    changed = [s for s in unknown if s.size in lost or None in lost or s.key in known]
    reader = Reader()
    inputs.contents |= {s.key: fingerprints.read(s, reader) for s in sorted(changed, key=reading_order)}
    inputs.judge()
    return inputs


def look_again(inputs: Inputs, keys: Collection[str], collection: str, ctx: Context, cached: Sequence[Index]) -> Inputs:
    """The inputs after the user's files `keys` were read. If one of them changed since, the folder is scanned again.

    What became of the others meanwhile, and whether there are new ones, is left to the next run.
    """
    if not inputs.sources:
        return inputs
    reader = Reader()
    news: dict[str, bytes] = {}
    for source in (inputs.sources[key] for key in keys if not inputs.sources[key].problem):
        if not looks_the_same(source):
            return read_sources(collection, ctx, cached)
        content = news[source.key] = inputs.fingerprints.read(source, reader)
        if content != UNREADABLE:
            inputs.duplicate(source.key, content)
    inputs.contents |= news
    if inputs.repeated:
        inputs.judge()
    else:
        inputs.input_digests.put(news)
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
    indices = []
    parents = {}
    for parent in sorted(stage.parents):
        path = ctx.file(collection, parent)
        if not path.exists():
            command = stage.producers.get(parent, parent)
            raise UserError(f"{path}: missing, but stage {stage.name} reads it; run `hypernst {command}` first", 2)
        with Cache(path) as cache:
            indices.append(cache.index())
            parents[parent] = cache.rows_digest()
    return Inputs(functools.reduce(Index.common, indices), {}, parents, Fingerprints(None))
