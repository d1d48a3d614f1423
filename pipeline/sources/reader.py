"""One image of the user, and how its bytes are read out of a folder or an archive."""

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


class Reader:
    """Reads sources, keeping the last archive open."""

    def __init__(self) -> None:
        self._archive = archives.Reader()

    def read(self, source: Source) -> bytes:
        """The picture's bytes; raises OSError."""
        if source.at == PLAIN:
            with open(source.file, "rb") as file:
                return file.read()
        return self._archive.read(source.file, source.at, source.size)
