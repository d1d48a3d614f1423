"""The user's pictures: folders and archives become keyed sources, each key stable and unique whatever the name is."""

# Plain strings throughout: a Path a file would be half the time and memory of scanning 100,000.
# ruff: noqa: PTH116, PTH118, PTH122

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sources import archives
from pipeline.sources.archives import BadArchiveError
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.keys import key_of
from pipeline.sources.reader import PLAIN, Source, too_large

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".avif", ".heic", ".heif", ".jp2", ".jxl",  # some only to be told that they cannot be read
}  # fmt: skip


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def scan(place: Path, notes: "Fingerprints | None" = None) -> list[Source]:
    """Every picture in a folder (followed through links, archives in it looked into) or an archive, sorted by key.

    `notes` remembers what archives hold. An archive that cannot be used is one source with a problem.

    Raises: UserError(2) when the place is missing or a bad archive, holds no picture, or two names share a key.
    """
    notes = notes or Fingerprints(None)
    found: Iterator[Source]
    if place.is_dir():
        found = itertools.chain.from_iterable(_file(file, relative, notes) for file, relative in _walk(place))
    elif archives.is_archive(place.name) and place.is_file():
        try:
            found = iter(_members(str(place), "", place.stat(), notes))
        except (BadArchiveError, OSError) as error:
            raise UserError(f"{place}: {error}", 2) from None
    elif place.is_file() and is_picture(place.name):
        found = iter(_file(str(place), place.name, notes))
    else:
        wanted = f"a folder of pictures, a picture or an archive ({' '.join(archives.SUFFIXES)})"
        what = "neither folder, picture nor archive" if place.exists() else "no such folder or file"
        raise UserError(f"{place}: {what}; expected {wanted}; `hypernst samples` makes some pictures", 2)
    sources = sorted(found)
    if not sources:
        raise UserError(f"{place}: holds no picture; expected files ending in {' '.join(sorted(SUFFIXES))}", 2)
    for a, b in itertools.pairwise(sources):
        if a.key == b.key:
            raise UserError(f"{place}: {a.path!r} and {b.path!r} share the key {a.key!r}; rename one", 2)
    return sources


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, relative path) of each picture and archive, and of folders that cannot be read.

    A folder reached twice through links is visited once.
    """
    seen: set[str] = set()
    closed: list[str] = []
    skip = len(os.path.join(folder, ""))
    for top, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: closed.append(e.filename)):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            if is_picture(name) or (archives.is_archive(name) and not name.startswith(".")):
                file = os.path.join(top, name)
                yield file, file[skip:]
    for file in closed:
        yield file, file[skip:] or "."


def _file(file: str, relative: str, notes: "Fingerprints") -> list[Source]:
    """A picture file as a source, or those in an archive; one with a problem if it cannot be looked at."""

    def one(size: int, mtime_ns: int, problem: str = "") -> list[Source]:
        return [Source(key_of(relative), _shown(relative), file, PLAIN, size, mtime_ns, problem)]

    try:
        state = os.stat(file)
    except OSError as error:  # a dangling link, say: kept, so that it ends up among the rejects
        return one(-1, 0, f"cannot be read: {error.strerror}")
    if stat.S_ISDIR(state.st_mode):
        return one(-1, 0, "folder cannot be read")
    if not stat.S_ISREG(state.st_mode):
        return one(-1, 0, "not a plain file")
    if not archives.is_archive(relative):
        return one(state.st_size, state.st_mtime_ns, too_large(state.st_size))
    try:
        return _members(file, relative, state, notes)
    except BadArchiveError as error:
        return one(state.st_size, state.st_mtime_ns, str(error))
    except OSError as error:
        return one(-1, 0, f"cannot be read: {error.strerror}")


def _members(file: str, relative: str, state: os.stat_result, notes: "Fingerprints") -> list[Source]:
    """The pictures in an archive, `relative` being a folder they lie in ("" for the collection itself)."""
    members = notes.archive(file, state)
    mains = archives.main_pictures(members, SUFFIXES) if file.lower().endswith(archives.TARS) else {}
    found = []
    for name, at, size, problem in members:
        parts = name.split("/")
        if any(part.startswith(".") for part in parts[:-1]) or not is_picture(parts[-1]):
            continue
        sample, ending = archives.split(name)
        if "." in ending and sample in mains:  # `7.region.png` beside `7.jpg`: webdataset's other fields
            problem = problem or f"a further field of the sample whose picture is {mains[sample]!r}"
        path = f"{relative}/{name}" if relative else name
        found.append(Source(key_of(path), _shown(path), file, at, size, state.st_mtime_ns, problem or too_large(size)))
    return found


def _shown(path: str) -> str:
    """The path as text: bytes that are none, and NUL, written out."""
    if path.isascii() and "\0" not in path:
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\0")
