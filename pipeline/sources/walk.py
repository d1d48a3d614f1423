"""Walks a folder of the user's: what belongs to the system, to this program or to the other collection is left out."""

# Paths are plain strings: one Path per file would take half the time and memory of a scan of 100,000 files.
# ruff: noqa: PTH116, PTH118, PTH119, PTH120

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import ours
from pipeline.progress import say
from pipeline.sources import kinds
from pipeline.sources.kinds import Kind

SHOWN = 4  # names that a line about what is left out holds


@dataclass
class LeftOut:
    """What a scan did not take, for one line to the user: counts by suffix, name or path."""

    others: Counter[str] = field(default_factory=Counter)
    unopened: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    outside: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """The line; "" when everything was taken."""
        told = (
            (self.others, "file that is no image", "files that are no images"),
            (self.unopened, "file that cannot be opened", "files that cannot be opened"),
            (self.system, "hidden or system entry", "hidden or system entries"),
            (self.outputs, "file made by this program", "files made by this program"),
        )
        parts = [
            f"{counted.total()} {one if counted.total() == 1 else more} ({_listed(counted)})"
            for counted, one, more in told
            if counted
        ]
        return f"not read: {', '.join([*parts, *sorted(self.outside)])}" if parts or self.outside else ""

    def tell(self, of: object) -> None:
        """Say the line, if there is one, and of what it is."""
        if told := str(self):
            say(f"{of}: {told}")


def _listed(counted: Counter[str]) -> str:
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    names = [name if count == 1 else f"{count} {name}" for name, count in most]
    return ", ".join([*names, *([f"{len(counted) - SHOWN} more"] if len(counted) > SHOWN else [])])


def walk(folder: Path, outside: Mapping[Path, str], left: LeftOut) -> Iterator[tuple[str, str, Kind]]:
    """(file, relative path, kind) of each image and archive, and of each folder that cannot be read.

    A folder that links lead to twice is visited once. `outside` maps files and folders that are not read, where they
    lie inside `folder`, to what they are. Everything that is not taken is counted in `left`.
    """
    visited: set[str] = set()
    unreadable: list[str] = []
    mine: set[str] = set()
    elsewhere = {os.path.realpath(path): what for path, what in outside.items()}
    skip = len(os.path.join(folder, ""))
    for top, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: unreadable.append(e.filename)):
        real = os.path.realpath(top)
        if real in visited:
            folders.clear()
            continue
        if real in elsewhere and visited:
            left.outside.add(f"{elsewhere[real]} ({top[skip:]})")
            folders.clear()
            continue
        visited.add(real)
        mine.update(ours.outputs(top, (*folders, *files)))
        system = {name for name in (*folders, *files) if ours.is_system(name)}
        left.system.update(system)
        folders[:] = sorted(name for name in folders if name not in system)
        here = {os.path.basename(path): what for path, what in elsewhere.items() if os.path.dirname(path) == real}
        before = os.path.join(top, "")
        for name in (name for name in files if name not in system):
            file = before + name
            if file in mine:
                left.outputs[file[skip:]] += 1
            elif name in here:
                left.outside.add(f"{here[name]} ({file[skip:]})")
            elif (kind := kind_of(file, name)) is None:
                left.unopened[name] += 1
            elif kind.kind == kinds.OTHER:
                left.others[kinds.suffix(name) or "without a suffix"] += 1
            else:
                yield file, file[skip:], kind
    for file in unreadable:
        yield file, file[skip:] or ".", Kind(kinds.IMAGE)


def kind_of(file: str, name: str) -> Kind | None:
    """What a file is, judged by its first bytes where its name does not decide; None if it cannot be opened."""
    if kind := kinds.by_name(name):
        return kind
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return None
        with open(file, "rb") as opened:
            return kinds.by_content(opened, name)
    except OSError:
        return None
