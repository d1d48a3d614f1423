"""Archives of images: tars (plain, gzipped, or of webdataset) and zips; they are listed and read, never unpacked.

They are of unknown origin. There is a limit to everything that they claim, and any error of their readers counts as
damage to this one archive.
The messages here become reasons of rejects, and these enter digests: another wording makes cached rejects stale.
"""

# Paths are plain strings, as in `scan`.
# ruff: noqa: PTH116

import errno
import gzip
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipeline.sources import kinds, tars
from pipeline.zips import MEMBERS, Zip, judge

MAX_BYTES = 1 << 27  # most bytes of an image's file
NAMES = 1 << 25  # most letters in the names of all members
GROWTH, ROOM = 100, 1 << 30  # a gzipped tar may unpack to GROWTH times its size, or to ROOM bytes


class BadArchiveError(Exception):
    """Raised for an archive that is refused as a whole; the message says why, in a few words."""


class Member(NamedTuple):
    """One file of an archive: `at` is its offset in the (unzipped) bytes of a tar, or its number in a zip.

    `problem` says why it cannot be used, if that is known before it is read; "" if not. `sniffed` is whether its first
    bytes are those of an image, where its name does not tell.
    """

    name: str
    at: int
    size: int
    problem: str = ""
    sniffed: bool = False


def packing(path: str) -> str:
    """How an archive is packed, by its first bytes, or by its name where these tell nothing: zip, gzip or tar.

    Raises: OSError when the file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(kinds.HEAD)
    name = path.lower()
    return kinds.packing(head) or ("zip" if name.endswith(".zip") else "tar" if name.endswith(".tar") else "gzip")


def listing(path: str) -> list[Member]:
    """Every file in an archive, in the archive's order; names have no leading `./`.

    Raises: BadArchiveError when the archive is cut or damaged or no archive, when it has too many members, or when the
    name of a member leads out of it or occurs twice; OSError when the file cannot be read.
    """
    try:
        form = packing(path)
        members = _zip_members(path) if form == "zip" else _tar_members(path, form == "gzip")
        listed = _bounded(members)
    except BadArchiveError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, 0, errno.EINVAL):  # of a seek to nowhere
            raise
        raise BadArchiveError(f"damaged or cut archive ({_brief(error)}); pack it again") from None
    names = set()
    for member in listed:
        if member.name in names:
            raise BadArchiveError(f"archive holds {member.name!r} twice")
        names.add(member.name)
    return listed


def _bounded(members: Iterator[Member]) -> list[Member]:
    """The members as a list. Raises: BadArchiveError when they are too many, or their names too long."""
    listed: list[Member] = []
    letters = 0
    for member in members:
        listed.append(member)
        letters += len(member.name)
        if len(listed) > MEMBERS or letters > NAMES:
            raise BadArchiveError(
                f"holds more than {MEMBERS} files, or names of more than {NAMES >> 20} million "
                "letters; pack it as several archives"
            )
    return listed


def main_images(members: list[Member]) -> dict[str, str]:
    """The grouping of webdataset: sample (a name up to its first dot) -> the sample's main image.

    Only for samples that have a file besides images: `tom.jpg` and `tom.edited.jpg` alone are two pictures, in tars and
    zips alike.
    """
    mains, with_others = {}, set()
    for member in members:
        sample, ending = split(member.name)
        if f".{ending.lower()}" in kinds.IMAGES:
            mains[sample] = member.name
        elif "." not in ending and not member.sniffed:
            with_others.add(sample)
    return {sample: name for sample, name in mains.items() if sample in with_others}


def split(name: str) -> tuple[str, str]:
    """The sample of a member, and the rest of its name: `a/7.region.png` -> `a/7`, `region.png`."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending


class Reader:
    """Reads members. The last archive stays open, so that reading in the archive's order takes one pass."""

    def __init__(self) -> None:
        self._path = ""
        self._file: BinaryIO | gzip.GzipFile | None = None
        self._zip: Zip | None = None

    def read(self, path: str, at: int, size: int) -> bytes:
        """The bytes of one member. Raises: OSError, with the reason as its text, when they cannot be read."""
        try:
            if path != self._path:
                self.close()
                self._path = path
                form = packing(path)
                if form == "zip":
                    self._zip = Zip(path)
                else:
                    opened = gzip.open if form == "gzip" else open
                    self._file = opened(path, "rb")
            if self._zip is not None:
                data = bytes(self._zip.bounded(self._zip.infolist()[at], MAX_BYTES))
            else:
                assert self._file is not None
                self._file.seek(at)
                data = self._file.read(size)
        except Exception as error:  # the parsers of archives raise errors of any type
            self.close()
            raise OSError(0, f"damaged in the archive ({_brief(error)})") from None
        if len(data) != size:
            raise OSError(0, f"damaged in the archive ({len(data)} bytes, expected {size})")
        return data

    def close(self) -> None:
        """Close the archive that is open."""
        for handle in (self._file, self._zip):
            if handle is not None:
                handle.close()
        self._path, self._file, self._zip = "", None, None


def _tar_members(path: str, packed: bool) -> Iterator[Member]:
    limit = max(ROOM, GROWTH * os.stat(path).st_size) if packed else tars.FAR
    with gzip.open(path) if packed else open(path, "rb") as file:
        for entry, at, size, problem in tars.walk(file, limit):
            name, sniffed = _inside(entry), False
            if not problem and kinds.by_name(name) is None:
                file.seek(at)
                sniffed = _is_image(file.read(min(size, kinds.HEAD)), name)
            yield Member(name, at, size, problem, sniffed)


def _zip_members(path: str) -> Iterator[Member]:
    with Zip(path) as archive:
        for number, info in enumerate(archive.infolist()):
            if info.filename.endswith("/"):
                continue
            problem = "a link inside an archive" if stat.S_ISLNK(info.external_attr >> 16) else ""
            problem = "encrypted" if info.flag_bits & 1 else problem or _packing(info)
            name, sniffed = _inside(info.filename), False
            if not problem and kinds.by_name(name) is None:
                with archive.open(info) as member:
                    sniffed = _is_image(member.read(kinds.HEAD), name)
            yield Member(name, number, info.file_size, problem, sniffed)


def _is_image(head: bytes, name: str) -> bool:
    return kinds.by_content(io.BytesIO(head), name).kind == kinds.IMAGE


def _packing(info: zipfile.ZipInfo) -> str:
    try:
        judge(info)
    except NotImplementedError as error:
        return str(error)
    return ""


def _inside(name: str) -> str:
    """The name without `.` parts. Raises: BadArchiveError when it leads out of the archive."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise BadArchiveError(f"a name in the archive leads out of it: {name!r}; pack it anew without")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _brief(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return " ".join(str(getattr(error, "strerror", "") or error).split())[:80] or type(error).__name__
