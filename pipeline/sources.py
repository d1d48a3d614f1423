"""The user's pictures: a folder becomes keyed sources, each key stable and unique whatever the file is called."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.spec import digest

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
KEY = re.compile(r"[0-9a-z_-]+")
KEY_LENGTH = 88  # with the longest suffix it still fits the 100 characters of a tar header
UNREADABLE = digest(b"unreadable")


@dataclass(frozen=True)
class Source:
    """One file of the user: `path` is relative to the folder, for people; `size` is -1 when it cannot be looked at."""

    key: str
    path: str
    file: Path
    size: int
    mtime_ns: int

    def read(self) -> bytes:
        """The file's bytes; raises OSError."""
        return self.file.read_bytes()


def key_of(path: str) -> str:
    """The key of a relative path, at most 88 characters of `[0-9a-z_-]`.

    `faces/anna-1.jpg` becomes `faces__anna-1`. Any name this would lose something of (capitals, spaces, dots, other
    suffixes than .jpg) gets 12 hex digits of its sha256 appended: no key depends on what else is in the folder.
    """
    stem = path.removesuffix(".jpg")
    parts = stem.split("/")
    plain = "__".join(parts)
    if path.endswith(".jpg") and len(plain) <= KEY_LENGTH and all(_is_plain(p) for p in parts):
        return plain
    slug = re.sub(r"[^0-9a-z]+", "-", path.removesuffix(Path(path).suffix).lower()).strip("-")[:72]
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{slug}-{mark}" if slug else mark


def _is_plain(part: str) -> bool:
    return KEY.fullmatch(part) is not None and "__" not in part and not part.startswith("_") and not part.endswith("_")


def scan(folder: Path) -> list[Source]:
    """Every picture file under `folder`, followed through links, sorted by key.

    Raises: Fault(2) when the folder is missing, holds no picture, or two names share a key.
    """
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder; expected one with pictures (`hypernst samples` makes some)", 2)
    sources = sorted((_source(file, relative) for file, relative in _walk(folder)), key=lambda s: s.key)
    if not sources:
        raise Fault(f"{folder}: holds no picture; expected files ending in {' '.join(sorted(SUFFIXES))}", 2)
    for a, b in itertools.pairwise(sources):
        if a.key == b.key:
            raise Fault(f"{folder}: {a.path!r} and {b.path!r} share the key {a.key!r}; rename one", 2)
    return sources


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, relative path) of each picture; a folder reached twice through links is visited once."""
    seen = set()
    for top, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(top)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                file = Path(top, name)
                yield file, file.relative_to(folder).as_posix()


def _source(file: Path, relative: str) -> Source:
    shown = os.fsencode(relative).decode("utf-8", "backslashreplace")
    try:
        stat = file.stat()
        return Source(key_of(relative), shown, file, stat.st_size, stat.st_mtime_ns)
    except OSError:  # a dangling link, say: kept, so that it ends up among the rejects
        return Source(key_of(relative), shown, file, -1, 0)


class Fingerprints:
    """Remembers each source's content digest by size and time, so an unchanged folder is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.news: dict[str, list] = {}  # what was noted since the last save
        try:
            self._known: dict[str, list] = json.loads(path.read_text())
        except (OSError, ValueError):  # only a shortcut: without it files are read
            self._known = {}

    def get(self, source: Source) -> bytes | None:
        """The digest, if the file looks untouched since it was taken."""
        size, mtime, content = self._known.get(source.key, (None, None, ""))
        return bytes.fromhex(content) if (size, mtime) == (source.size, source.mtime_ns) else None

    def put(self, source: Source, data: bytes) -> bytes:
        """Note and return the digest of `data`, the bytes of `source`."""
        content = digest(data)
        self.learn({source.key: [source.size, source.mtime_ns, content.hex()]})
        return content

    def learn(self, news: dict[str, list]) -> None:
        """Take over what another process noted."""
        self._known |= news
        self.news |= news

    def read(self, source: Source) -> bytes:
        """The digest of the file, read if need be; UNREADABLE if it cannot be."""
        known = self.get(source)
        if known is not None:
            return known
        try:
            return self.put(source, source.read())
        except OSError:
            return UNREADABLE

    def save(self) -> None:
        """Write the notes beside the collection's caches."""
        if self.news:
            write_atomic(self._path, json.dumps(self._known, sort_keys=True).encode())
            self.news = {}
