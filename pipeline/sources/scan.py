"""Finds the user's images in folders and archives; each becomes a source with a stable and unique key.

What belongs to the system, to this program or to the other collection is left out.
"""

# Paths are plain strings: one Path per file would take half the time and memory of a scan of 100,000 files.
# ruff: noqa: PTH116, PTH118, PTH119, PTH120

import itertools
import operator
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import ours
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.sources import archives, kinds
from pipeline.sources.archives import BadArchiveError
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.keys import key_of
from pipeline.sources.kinds import Kind
from pipeline.sources.reader import PLAIN, Source, stamp_of, too_large

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


def scan(
    place: Path,
    fingerprints: Fingerprints | None = None,
    outside: Mapping[Path, str] | None = None,
    left: LeftOut | None = None,
) -> list[Source]:
    """Every image in a folder or an archive, sorted by key; a folder's links and archives are followed.

    Files are judged by their first bytes where their names do not tell. `outside` maps places that are not read, though
    they lie in the folder, to what they are; `left` counts all that is not taken. `fingerprints` remembers the members
    of archives. A bad archive in a folder, or an image of a kind that is not read, becomes one source with a problem.
    Raises: UserError(2) when `place` is missing or a bad archive or holds no image, or when two names share a key.
    """
    fingerprints = fingerprints or Fingerprints(None)
    left = LeftOut() if left is None else left
    kind = _kind(str(place), place.name) if place.is_file() else None
    images: Iterator[Source]
    if place.is_dir():
        found = _walk(place, outside or {}, left)
        images = itertools.chain.from_iterable(_file(*one, fingerprints, left) for one in found)
    elif kind is not None and kind.kind == kinds.ARCHIVE:
        try:
            if kind.problem:
                raise BadArchiveError(kind.problem)
            images = iter(_members(str(place), "", place.stat(), fingerprints, left))
        except (BadArchiveError, OSError) as error:
            raise UserError(f"{place}: {error}", 2) from None
    elif kind is not None and kind.kind != kinds.OTHER:
        images = iter(_file(str(place), place.name, kind, fingerprints, left))
    else:
        expected = f"a folder of images, an image or an archive ({' '.join(kinds.ARCHIVES)})"
        what = "neither folder, image nor archive" if place.exists() else "no such folder or file"
        raise UserError(f"{place}: {what}; expected {expected}; `hypernst samples` makes sample images", 2)
    sources = sorted(images, key=operator.attrgetter("key"))
    if not sources:
        own = "; pictures that it made are taken by name, one by one" if left.outputs else ""
        raise UserError(
            f"{place}: holds no image; expected JPEG, PNG, WebP and the like; {str(left) or 'it is empty'}{own}", 2
        )
    for a, b in itertools.pairwise(sources):
        if a.key == b.key:
            raise UserError(f"{place}: {a.path!r} and {b.path!r} share the key {a.key!r}; rename one of them", 2)
    return sources


def _walk(folder: Path, outside: Mapping[Path, str], left: LeftOut) -> Iterator[tuple[str, str, Kind]]:
    """(file, relative path, kind) of each image and archive, and of each folder that cannot be read.

    A folder that links lead to twice is visited once, one that holds `folder` itself never. `outside` maps files and
    folders that are not read, where they lie inside `folder`, to what they are. All that is not taken is counted in
    `left`.
    """
    visited: set[str] = set()
    unreadable: list[str] = []
    mine: set[str] = set()
    elsewhere = {os.path.realpath(path): what for path, what in outside.items()}
    skip, start = len(os.path.join(folder, "")), os.path.realpath(folder)
    for top, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: unreadable.append(e.filename)):
        real = os.path.realpath(top)
        if real in visited:
            folders.clear()
            continue
        if visited and os.path.commonpath([start, real]) == real:
            left.outside.add(f"a folder around it ({top[skip:]})")
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
            elif (kind := _kind(file, name)) is None:
                left.unopened[name] += 1
            elif kind.kind == kinds.OTHER:
                left.others[kinds.suffix(name) or "without a suffix"] += 1
            else:
                yield file, file[skip:], kind
    for file in unreadable:
        yield file, file[skip:] or ".", Kind(kinds.IMAGE)


def _kind(file: str, name: str) -> Kind | None:
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


def _file(file: str, relative: str, kind: Kind, fingerprints: Fingerprints, left: LeftOut) -> list[Source]:
    """The source of an image file, or those of an archive; one with a problem when the file is not usable."""
    size, stamp = -1, tuple[int, ...]()
    try:
        state = os.stat(file)
        if stat.S_ISREG(state.st_mode):
            size, stamp = state.st_size, stamp_of(state)
            if kind.kind == kinds.ARCHIVE and not kind.problem:
                return _members(file, relative, state, fingerprints, left)
            problem = kind.problem or too_large(size)
        else:
            problem = "folder cannot be read" if stat.S_ISDIR(state.st_mode) else "not a plain file"
    except BadArchiveError as error:
        problem = str(error)
    except OSError as error:  # such as a dangling link; it becomes a reject
        size, stamp, problem = -1, (), f"cannot be read: {error.strerror}"
    return [Source(key_of(relative), _shown(relative), file, PLAIN, size, stamp, problem)]


def _members(
    file: str, relative: str, state: os.stat_result, fingerprints: Fingerprints, left: LeftOut
) -> list[Source]:
    """The images in an archive; their paths begin with `relative`, the archive's path ("" for the collection)."""
    members = fingerprints.archive(file, state)
    mains = archives.main_images(members)
    sources = []
    for name, at, size, problem, sniffed in members:
        parts = name.split("/")
        if system := next(filter(ours.is_system, parts), ""):
            left.system[system] += 1
            continue
        kind = kinds.by_name(parts[-1]) or Kind(kinds.IMAGE if sniffed else kinds.OTHER)
        if kind.kind != kinds.IMAGE:
            left.others[kinds.suffix(name) or "without a suffix"] += 1
            continue
        sample, ending = archives.split(name)
        if sample in mains and ("." in ending or sniffed):  # `7.region.png` beside `7.jpg`: another field of a sample
            problem = problem or f"a further field of the sample whose picture is {mains[sample]!r}"
        path, problem = f"{relative}/{name}" if relative else name, problem or kind.problem or too_large(size)
        sources.append(Source(key_of(path), _shown(path), file, at, size, stamp_of(state), problem))
    return sources


def _shown(path: str) -> str:
    """The path as text; bytes that are no text, and NUL, become escapes."""
    if path.isascii() and "\0" not in path:
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\0")
