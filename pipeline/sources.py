"""The user's pictures: folders and archives become keyed sources, each key stable and unique whatever the name is."""

# Plain strings throughout: a Path a file would be half the time and memory of scanning 100,000.
# ruff: noqa: PTH116, PTH118, PTH122

import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline import archives
from pipeline.archives import BadArchiveError, Member
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.spec import digest

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".avif", ".heic", ".heif", ".jp2", ".jxl",  # some only to be told that they cannot be read
}  # fmt: skip
KEY = re.compile(r"[0-9a-z_-]+")
KEY_LENGTH = 88  # with the longest suffix it still fits the 100 characters of a tar header
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


def key_of(path: str) -> str:
    """The key of a relative path, at most 88 characters of `[0-9a-z_-]`.

    `faces/anna-1.jpg` becomes `faces__anna-1`. Any name this would lose something of (capitals, spaces, dots, other
    suffixes than .jpg) gets 12 hex digits of its sha256 appended: no key depends on what else is in the folder.
    A file in an archive has the key it would have unpacked, the archive's own name being a folder.
    """
    stem = path.removesuffix(".jpg")
    parts = stem.split("/")
    plain = "__".join(parts)
    if path.endswith(".jpg") and len(plain) <= KEY_LENGTH and all(_is_plain(p) for p in parts):
        return plain
    slug = re.sub(r"[^0-9a-z]+", "-", path.removesuffix(os.path.splitext(path)[1]).lower()).strip("-")[:72]
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{slug}-{mark}" if slug else mark


def _is_plain(part: str) -> bool:
    return KEY.fullmatch(part) is not None and "__" not in part and not part.startswith("_") and not part.endswith("_")


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def scan(place: Path, notes: "Fingerprints | None" = None) -> list[Source]:
    """Every picture in a folder (followed through links, archives in it looked into) or an archive, sorted by key.

    `notes` remembers what archives hold. An archive that cannot be used is one source with a problem.

    Raises: Fault(2) when the place is missing or a bad archive, holds no picture, or two names share a key.
    """
    notes = notes or Fingerprints(None)
    found: Iterator[Source]
    if place.is_dir():
        found = itertools.chain.from_iterable(_file(file, relative, notes) for file, relative in _walk(place))
    elif archives.is_archive(place.name) and place.is_file():
        try:
            found = iter(_members(str(place), "", place.stat(), notes))
        except (BadArchiveError, OSError) as error:
            raise Fault(f"{place}: {error}", 2) from None
    elif place.is_file() and is_picture(place.name):
        found = iter(_file(str(place), place.name, notes))
    else:
        wanted = f"a folder of pictures, a picture or an archive ({' '.join(archives.SUFFIXES)})"
        what = "neither folder, picture nor archive" if place.exists() else "no such folder or file"
        raise Fault(f"{place}: {what}; expected {wanted}; `hypernst samples` makes some pictures", 2)
    sources = sorted(found)
    if not sources:
        raise Fault(f"{place}: holds no picture; expected files ending in {' '.join(sorted(SUFFIXES))}", 2)
    for a, b in itertools.pairwise(sources):
        if a.key == b.key:
            raise Fault(f"{place}: {a.path!r} and {b.path!r} share the key {a.key!r}; rename one", 2)
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
        return one(state.st_size, state.st_mtime_ns, _too_large(state.st_size))
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
        found.append(Source(key_of(path), _shown(path), file, at, size, state.st_mtime_ns, problem or _too_large(size)))
    return found


def _too_large(size: int) -> str:
    limit = archives.MAX_BYTES
    told = f"more than {limit / 1e6:.0f} MB for a picture's file; save it smaller, or as a JPEG"
    return told if size > limit else ""


def contents(file: str) -> bytes:
    """The bytes of a picture's file. Raises: OSError, its text the reason, for one too large or no plain file, too."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError(0, "not a plain file")
    with open(file, "rb") as opened:
        data = opened.read(archives.MAX_BYTES + 1)
    if reason := _too_large(len(data)):  # more than that is not even read
        raise OSError(0, reason)
    return data


def _shown(path: str) -> str:
    """The path as text: bytes that are none, and NUL, written out."""
    if path.isascii() and "\0" not in path:
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\0")


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
            return contents(source.file)
        return self._archive.read(source.file, source.at, source.size)


class Fingerprints:
    """Remembers what was read once, by size and time: each source's content digest, and what archives hold."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.news: dict[str, list] = {}  # digests noted since the last save
        self._changed = False
        self._files: dict[str, list] = {}
        self._archives: dict[str, list] = {}
        try:
            known = json.loads(path.read_bytes() if path else b"{}")
            self._files, self._archives = known["files"], known["archives"]
        except (OSError, ValueError, KeyError, TypeError):  # only a shortcut: without it files are read
            pass

    def get(self, source: Source) -> bytes | None:
        """The digest, if the file looks untouched since it was taken."""
        size, mtime, content = self._files.get(source.key, (None, None, ""))
        return bytes.fromhex(content) if (size, mtime) == (source.size, source.mtime_ns) else None

    def put(self, source: Source, data: bytes) -> bytes:
        """Note and return the digest of `data`, the bytes of `source`."""
        content = digest(data)
        self.learn({source.key: [source.size, source.mtime_ns, content.hex()]})
        return content

    def learn(self, news: dict[str, list]) -> None:
        """Take over what another process noted."""
        self._files |= news
        self.news |= news

    def read(self, source: Source, reader: Reader) -> bytes:
        """The digest of the picture, read if need be; UNREADABLE if it cannot be."""
        known = self.get(source)
        if known is not None:
            return known
        try:
            return self.put(source, reader.read(source))
        except OSError:
            return UNREADABLE

    def archive(self, file: str, state: os.stat_result) -> list[Member]:
        """What an archive holds, listed anew if it looks touched. Raises: BadArchiveError."""
        size, mtime, members = self._archives.get(file, (None, None, []))
        if (size, mtime) != (state.st_size, state.st_mtime_ns):
            members = archives.listing(file)
            self._archives[file] = [state.st_size, state.st_mtime_ns, members]
            self._changed = True
        return [Member(*member) for member in members]

    def save(self) -> None:
        """Write the notes beside the collection's caches."""
        if (self.news or self._changed) and self._path:
            known = {"files": self._files, "archives": self._archives}
            write_atomic(self._path, json.dumps(known, sort_keys=True).encode())
            self.news, self._changed = {}, False
