"""One image of the user, and how its bytes are read from a folder or an archive."""

import os
import stat
from typing import NamedTuple

from pipeline.hashing import digest
from pipeline.sources import archives

UNREADABLE = digest(b"unreadable")
PLAIN = -1  # `at` of a source that is a file of its own


class Source(NamedTuple):
    """One image of the user: `path` is relative to the collection, for people.

    `file` is the file that holds it; `at` is its place there if that is an archive, else PLAIN. `size` is in bytes, -1
    when it is not known. `stamp` changes whenever the file may have: its times and its inode. `problem` says why the
    image cannot be used, if that is known before it is read; "" if not.
    """

    key: str
    path: str
    file: str
    at: int
    size: int
    stamp: tuple[int, ...]
    problem: str


def stamp_of(state: os.stat_result) -> tuple[int, ...]:
    """What tells that a file may have changed beside its size; nobody can set the second time back."""
    return state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def looks_the_same(source: Source) -> bool:
    """Whether the file that holds a source has the times and inode, and a file of its own the size, that it had."""
    try:
        state = os.stat(source.file)  # noqa: PTH116
    except OSError:
        return False
    return stamp_of(state) == source.stamp and (source.at != PLAIN or state.st_size == source.size)


def reading_order(source: Source) -> tuple[str, int, str]:
    """The sort key for reading: first plain files by key, then the members of each archive in its order."""
    return ("", PLAIN, source.key) if source.at == PLAIN else (source.file, source.at, source.key)


def too_large(size: int) -> str:
    """Why a file of `size` bytes is refused; "" if it is not. The text becomes the reason of a reject."""
    limit = archives.MAX_BYTES
    reason = f"more than {limit / 1e6:.0f} MB for an image's file; save it smaller, or as a JPEG"
    return reason if size > limit else ""


def _at_once(file: str, flags: int) -> int:
    """Open a file without waiting: for the other end of a pipe, or for what a file of /proc may give later."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def contents(file: str) -> bytes:
    """The bytes of an image's file.

    Raises: OSError when it cannot be read, is no plain file, or is too large.
    """
    if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116
        raise OSError(0, "not a plain file")
    with open(file, "rb", opener=_at_once) as opened:
        data = opened.read(archives.MAX_BYTES + 1) or b""  # None: of the system's own files some give nothing yet
    if reason := too_large(len(data)):  # not more than one byte above the limit is read
        raise OSError(0, reason)
    return data


class Reader:
    """Reads sources; the last archive stays open."""

    def __init__(self) -> None:
        self._archive = archives.Reader()

    def read(self, source: Source) -> bytes:
        """The bytes of the image's file. Raises: OSError when they cannot be read."""
        if source.at == PLAIN:
            return contents(source.file)
        return self._archive.read(source.file, source.at, source.size)
