"""Finds the user's images in folders and archives; each becomes a source with a stable and unique key."""

# Paths are plain strings: one Path per file would take half the time and memory of a scan of 100,000 files.
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
    ".avif", ".heic", ".heif", ".jp2", ".jxl",  # some of these cannot be read and become rejects
}  # fmt: skip


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def scan(place: Path, fingerprints: Fingerprints | None = None) -> list[Source]:
    """Every image in a folder or an archive, sorted by key; a folder's links and archives are followed.

    `fingerprints` remembers the members of archives. A bad archive in a folder becomes one source with a problem.
    Raises: UserError(2) when `place` is missing or a bad archive or holds no image, or when two names share a key.
    """
    fingerprints = fingerprints or Fingerprints(None)
    images: Iterator[Source]
    if place.is_dir():
        images = itertools.chain.from_iterable(_file(file, relative, fingerprints) for file, relative in _walk(place))
    elif archives.is_archive(place.name) and place.is_file():
        try:
            images = iter(_members(str(place), "", place.stat(), fingerprints))
        except (BadArchiveError, OSError) as error:
            raise UserError(f"{place}: {error}", 2) from None
    elif place.is_file() and is_image(place.name):
        images = iter(_file(str(place), place.name, fingerprints))
    else:
        expected = f"a folder of images, an image or an archive ({' '.join(archives.SUFFIXES)})"
        what = "neither folder, image nor archive" if place.exists() else "no such folder or file"
        raise UserError(f"{place}: {what}; expected {expected}; `hypernst samples` makes sample images", 2)
    sources = sorted(images)
    if not sources:
        raise UserError(f"{place}: holds no image; expected files that end in {' '.join(sorted(SUFFIXES))}", 2)
    for a, b in itertools.pairwise(sources):
        if a.key == b.key:
            raise UserError(f"{place}: {a.path!r} and {b.path!r} share the key {a.key!r}; rename one of them", 2)
    return sources


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, relative path) of each image and archive, and of each folder that cannot be read.

    A folder that links lead to twice is visited once.
    """
    visited: set[str] = set()
    unreadable: list[str] = []
    skip = len(os.path.join(folder, ""))
    for top, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: unreadable.append(e.filename)):
        real = os.path.realpath(top)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            if is_image(name) or (archives.is_archive(name) and not name.startswith(".")):
                file = os.path.join(top, name)
                yield file, file[skip:]
    for file in unreadable:
        yield file, file[skip:] or "."


def _file(file: str, relative: str, fingerprints: Fingerprints) -> list[Source]:
    """The source of an image file, or those of an archive; one with a problem when the file is not usable."""

    def one(size: int, mtime_ns: int, problem: str = "") -> list[Source]:
        return [Source(key_of(relative), _shown(relative), file, PLAIN, size, mtime_ns, problem)]

    try:
        state = os.stat(file)
    except OSError as error:  # such as a dangling link; it becomes a reject
        return one(-1, 0, f"cannot be read: {error.strerror}")
    if stat.S_ISDIR(state.st_mode):
        return one(-1, 0, "folder cannot be read")
    if not stat.S_ISREG(state.st_mode):
        return one(-1, 0, "not a plain file")
    if not archives.is_archive(relative):
        return one(state.st_size, state.st_mtime_ns, too_large(state.st_size))
    try:
        return _members(file, relative, state, fingerprints)
    except BadArchiveError as error:
        return one(state.st_size, state.st_mtime_ns, str(error))
    except OSError as error:
        return one(-1, 0, f"cannot be read: {error.strerror}")


def _members(file: str, relative: str, state: os.stat_result, fingerprints: Fingerprints) -> list[Source]:
    """The images in an archive; their paths begin with `relative`, the archive's path ("" for the collection)."""
    members = fingerprints.archive(file, state)
    mains = archives.main_images(members, SUFFIXES) if file.lower().endswith(archives.TARS) else {}
    sources = []
    for name, at, size, problem in members:
        parts = name.split("/")
        if any(part.startswith(".") for part in parts[:-1]) or not is_image(parts[-1]):
            continue
        sample, ending = archives.split(name)
        if "." in ending and sample in mains:  # `7.region.png` beside `7.jpg`: another field of a webdataset sample
            problem = problem or f"a further field of the sample whose picture is {mains[sample]!r}"
        path = f"{relative}/{name}" if relative else name
        sources.append(
            Source(key_of(path), _shown(path), file, at, size, state.st_mtime_ns, problem or too_large(size))
        )
    return sources


def _shown(path: str) -> str:
    """The path as text; bytes that are no text, and NUL, become escapes."""
    if path.isascii() and "\0" not in path:
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\0")
