"""Archives of pictures: tars (plain or gzipped, webdataset's included) and zips, listed and read, never unpacked.

They are of unknown origin: what they claim is bounded, and whatever their readers raise is damage to one archive.
"""

# Plain strings throughout, as in `sources`.
# ruff: noqa: PTH116

import gzip
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipeline.sources import tars
from pipeline.zips import MEMBERS, Zip, judge

TARS = (".tar", ".tar.gz", ".tgz")
SUFFIXES = (*TARS, ".zip")
MAX_BYTES = 1 << 27  # of one picture's file
NAMES = 1 << 25  # letters of all members' names
GROWTH, ROOM = 100, 1 << 30  # a gzipped tar may unpack to so many times its size, or so many bytes


class BadArchiveError(Exception):
    """An archive that is refused whole; the message says why, in a few words."""


class Member(NamedTuple):
    """One file of an archive: `at` is its offset in a tar's (unzipped) bytes, its number in a zip.

    `problem` says why it cannot be used, if that is plain without reading it.
    """

    name: str
    at: int
    size: int
    problem: str = ""


def is_archive(name: str) -> bool:
    """Whether a file of this name is read as an archive."""
    return name.lower().endswith(SUFFIXES)


def listing(path: str) -> list[Member]:
    """Every file in an archive, in its order, its name without leading `./`.

    Raises: BadArchiveError when it is cut, damaged or none, has too many members, or one whose name leads out of it or
    is there twice; OSError when the file cannot be read at all.
    """
    try:
        members = _zip_members(path) if path.lower().endswith(".zip") else _tar_members(path)
        found = _bounded(members)
    except BadArchiveError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadArchiveError(f"damaged or cut archive ({_brief(error)}); pack it again") from None
    seen = set()
    for member in found:
        if member.name in seen:
            raise BadArchiveError(f"archive holds {member.name!r} twice")
        seen.add(member.name)
    return found


def _bounded(members: Iterator[Member]) -> list[Member]:
    """All of them. Raises: BadArchiveError when they, or their names, are too many to keep."""
    found: list[Member] = []
    letters = 0
    for member in members:
        found.append(member)
        letters += len(member.name)
        if len(found) > MEMBERS or letters > NAMES:
            raise BadArchiveError(
                f"holds more than {MEMBERS} files, or names of more than {NAMES >> 20} million "
                "letters; pack it as several archives"
            )
    return found


def main_pictures(members: list[Member], suffixes: set[str]) -> dict[str, str]:
    """Webdataset's grouping of a tar: sample (the name up to its first dot) -> the picture it is about."""
    mains = {}
    for member in members:
        sample, ending = split(member.name)
        if f".{ending.lower()}" in suffixes:
            mains[sample] = member.name
    return mains


def split(name: str) -> tuple[str, str]:
    """A member's sample and the rest of its name: `a/7.region.png` -> `a/7`, `region.png`."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending


class Reader:
    """Reads members; keeps the last archive open, so that reading in the archive's order costs one pass."""

    def __init__(self) -> None:
        self._path = ""
        self._file: BinaryIO | gzip.GzipFile | None = None
        self._zip: Zip | None = None

    def read(self, path: str, at: int, size: int) -> bytes:
        """The bytes of one member. Raises: OSError with the reason as its text when they cannot be had."""
        try:
            if path != self._path:
                self.close()
                self._path = path
                if path.lower().endswith(".zip"):
                    self._zip = Zip(path)
                else:
                    opened = open if path.lower().endswith(".tar") else gzip.open
                    self._file = opened(path, "rb")
            if self._zip is not None:
                data = bytes(self._zip.bounded(self._zip.infolist()[at], MAX_BYTES))
            else:
                assert self._file is not None
                self._file.seek(at)
                data = self._file.read(size)
        except Exception as error:  # these are other people's parsers
            self.close()
            raise OSError(0, f"damaged in the archive ({_brief(error)})") from None
        if len(data) != size:
            raise OSError(0, f"damaged in the archive ({len(data)} bytes, expected {size})")
        return data

    def close(self) -> None:
        """Let go of the archive that is open."""
        for handle in (self._file, self._zip):
            if handle is not None:
                handle.close()
        self._path, self._file, self._zip = "", None, None


def _tar_members(path: str) -> Iterator[Member]:
    packed = not path.lower().endswith(".tar")
    limit = max(ROOM, GROWTH * os.stat(path).st_size) if packed else tars.FAR
    with gzip.open(path) if packed else open(path, "rb") as file:
        for name, at, size, problem in tars.walk(file, limit):
            yield Member(_inside(name), at, size, problem)


def _zip_members(path: str) -> Iterator[Member]:
    with Zip(path) as archive:
        for number, info in enumerate(archive.infolist()):
            if info.filename.endswith("/"):
                continue
            problem = "a link inside an archive" if stat.S_ISLNK(info.external_attr >> 16) else ""
            problem = "encrypted" if info.flag_bits & 1 else problem or _packing(info)
            yield Member(_inside(info.filename), number, info.file_size, problem)


def _packing(info: zipfile.ZipInfo) -> str:
    try:
        judge(info)
    except NotImplementedError as error:
        return str(error)
    return ""


def _inside(name: str) -> str:
    """The name without `.` steps; an archive with one that leads elsewhere is not to be trusted."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise BadArchiveError(f"a name in the archive leads out of it: {name!r}; pack it anew without")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _brief(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return " ".join(str(getattr(error, "strerror", "") or error).split())[:80] or type(error).__name__
