"""Portraits that were read once: CACHE/portraits/ has a folder for each, with a cache file of one row per stage.

They are the caches of a collection in small: the same files, recipes, digests and checks. A portrait's folder is named
after its file's content and the way it was aligned, so that it is found again under any name.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import hashing, ours
from pipeline.caches import writer
from pipeline.caches.digests import Index
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Row
from pipeline.caches.writer import PendingRows
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import disk_error
from pipeline.locks import locked
from pipeline.progress import say
from pipeline.runner import staleness
from pipeline.runner.inputs import Inputs
from pipeline.runner.recipe import change
from pipeline.runner.spec import StageSpec
from pipeline.sources.fingerprints import Fingerprints

MOST = 2000  # portraits in a cache folder, about 2 GB


class KeptPortraits:
    """The rows of single portraits in a cache folder, by content and recipe. What is stale or damaged is not there.

    Of more than MOST portraits those that were not used for longest go. Where nothing can be written, nothing is kept,
    and a message says so once.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx, self.folder = ctx, ctx.cache / ours.PORTRAITS
        self._writable = True

    def place(self, sha256: str, steps: Sequence[StageSpec], which: int | None) -> Path:
        """The folder of the file with this sha256, aligned as the first of `steps` says, with the face `which`."""
        made = hashing.digest(repr([steps[0].recipe(), which]).encode()).hex()
        return self.folder / f"{sha256[:32]}-{made[:8]}"

    def rows(self, sha256: str, steps: Sequence[StageSpec], which: int | None) -> dict[str, Row]:
        """The row of each step that is there and that the step would compute again, by its output."""
        place = self.place(sha256, steps, which)
        rows: dict[str, Row] = {}
        digests: dict[str, bytes] = {}
        for step in steps:
            path = place / f"{step.output}.h5"
            if not path.exists() or not set(step.parents) <= set(rows):
                continue
            try:
                with Cache(path) as cache:
                    entry = cache.entries().get(place.name)
                    if entry is None or change(cache.provenance, step):
                        continue
                    if entry.inputs == _inputs(sha256, step, digests):
                        [rows[step.output]] = cache.rows([place.name], list(step.columns))
                        digests[step.output] = entry.digest
            except UserError as error:
                say(f"{error}; computed again")
        with suppress(OSError):
            os.utime(place)  # used now
        return rows

    def survey(self, *chains: Sequence[StageSpec]) -> tuple[int, dict[str, int]]:
        """How many portraits are kept, and of how many of their rows the recipe is another now, by what differs.

        `chains` are the steps of each collection; those of a portrait are the chain that differs least.
        """
        stale = Counter[str]()
        folders = ours.portraits(self.ctx.cache)
        for place in folders:
            made: dict[str, dict[str, Any]] = {}
            for output in ours.CACHES:
                with suppress(UserError), Cache(place / f"{output}.h5") as cache:
                    made[output] = cache.provenance
            told: Iterator[list[str]] = (
                [
                    f"{step.name}: {why}"
                    for step in steps
                    if step.output in made and (why := change(made[step.output], step))
                ]
                for steps in chains
            )
            least = min(told, key=len)
            stale.update(least)
        return len(folders), dict(sorted(stale.items()))

    def forget(self, sha256: str) -> None:
        """Remove what is kept of the file with this sha256."""
        for place in ours.portraits(self.ctx.cache):
            if place.name.startswith(sha256[:32]):
                with locked(self.folder / ours.LOCK):
                    remove(place)

    def put(self, sha256: str, steps: Sequence[StageSpec], which: int | None, step: StageSpec, row: Row) -> None:
        """Keep a step's row, computed from the rows of its parents that are kept."""
        place = self.place(sha256, steps, which)
        try:
            digests, parents = {}, {}
            for parent in step.parents if self._writable else ():
                with Cache(place / f"{parent}.h5") as cache:
                    digests[parent], parents[parent] = cache.index()[place.name], cache.rows_digest()
            if self._writable:
                batch = PendingRows.empty()
                batch.add(place.name, row, _inputs(sha256, step, digests))
                layout = staleness.layout(step, self.ctx, Inputs(Index.of({}), {}, parents, Fingerprints(None)))
                with locked(self.folder / ours.LOCK):
                    if not place.exists():
                        self._make_room()
                    writer.write_file(place / f"{step.output}.h5", batch, layout)
        except UserError as error:
            self._writable = False
            say(f"portraits are not kept: {error}")

    def _make_room(self) -> None:
        """Remove the portraits that were not used for longest, so that one more can be kept."""
        places = sorted(ours.portraits(self.ctx.cache), key=lambda place: place.stat().st_mtime)
        for place in places[: len(places) + 1 - MOST]:
            remove(place)


def remove(place: Path, but: Collection[Path] = ()) -> None:
    """Remove a portrait's files, except those named by `but`, and its folder if it is empty then.

    Raises: UserError when they may not be removed.
    """
    try:
        for path in ours.of_portrait(place):
            if path not in but:
                path.unlink()
        if not any(place.iterdir()):
            place.rmdir()
    except OSError as error:
        raise disk_error(error, place) from error


def _inputs(sha256: str, step: StageSpec, digests: dict[str, bytes]) -> bytes:
    """What a row depends on: the digests of its parents' rows, or of its file."""
    if not step.parents:
        return hashing.digest(sha256.encode())
    return b"".join(digests[parent] for parent in sorted(step.parents))
