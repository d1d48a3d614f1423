"""One image of the user, and how its bytes are read out of a folder or an archive."""

import stat
from pathlib import Path
from typing import NamedTuple

from pipeline.hashing import digest
from pipeline.sources import archives

UNREADABLE = digest(b"unreadable")
PLAIN = -1  # `at` of a source that is a file of its own


class Source(NamedTuple):
    """One picture of the user: `path` is relative to the collection, for people.

    `file` is the file it lies in, `at` its place there if that is an archive; `size` is -1 when it cannot be looked at.
    `problem` says why it cannot be used, if that is plain without reading it.
    """

    key: str
    path: str
    file: str
    at: int
    size: int
    mtime_ns: int
    problem: str


def reading_order(source: Source) -> tuple[str, int, str]:
    """Sorts sources for reading: files by key, then what lies in archives in its order there."""
    return ("", PLAIN, source.key) if source.at == PLAIN else (source.file, source.at, source.key)


def too_large(size: int) -> str:
    """Why a file of this size is refused; "" if it is not."""
    limit = archives.MAX_BYTES
    told = f"more than {limit / 1e6:.0f} MB for an image's file; save it smaller, or as a JPEG"
    return told if size > limit else ""


def contents(file: str) -> bytes:
    """The bytes of an image's file. Raises: OSError, its text the reason, for one too large or no plain file, too."""
    place = Path(file)
    if not stat.S_ISREG(place.stat().st_mode):
        raise OSError(0, "not a plain file")
    with place.open("rb") as opened:
        data = opened.read(archives.MAX_BYTES + 1)
    if reason := too_large(len(data)):  # more than that is not even read
        raise OSError(0, reason)
    return data


class Reader:
    """Reads sources, keeping the last archive open."""

    def __init__(self) -> None:
        self._archive = archives.Reader()

    def read(self, source: Source) -> bytes:
        """The picture's bytes; raises OSError."""
        if source.at == PLAIN:
            return contents(source.file)
        return self._archive.read(source.file, source.at, source.size)
