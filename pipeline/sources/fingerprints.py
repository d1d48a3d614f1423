"""Remembers digests of the user's files, so that unchanged files are not read again."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import LineLog, read_json, read_lines, write_atomic
from pipeline.hashing import DIGEST, digest
from pipeline.sources import archives
from pipeline.sources.archives import Member
from pipeline.sources.reader import UNREADABLE, Reader, Source, stamp_of

FOLDED = 8  # the log is folded into the file once it has more than one entry for so many of the file's


class Fingerprints:
    """The content digest of each source and the members of each archive: in a file, and the latest in a log beside it.

    They are valid for one folder and, file by file, for one size, inode and pair of times (of the content, and of any
    change). Where one of these differs the file is read, and its content decides.
    """

    def __init__(self, path: Path | None, place: Path | None = None) -> None:
        self._path, self._folder = path, str(place.resolve()) if place else ""
        self.news: dict[str, list] = {}  # digests added since the last save
        self._changed = False
        self._files: dict[str, list] = {}
        self._archives: dict[str, list] = {}
        self._former: dict[str, list] = {}  # the files as they were, in whatever folder
        try:
            saved = read_json(path) if path else {}
            self._former = dict(saved["files"])
            if saved["folder"] == self._folder:
                self._files, self._archives = dict(saved["files"]), dict(saved["archives"])
        except (ValueError, KeyError, TypeError):
            pass  # without saved digests all files are read
        self._log = path.with_suffix(".jsonl") if path else None
        self._folded, self._logged = len(self._former), 0
        with contextlib.suppress(UserError, AttributeError, KeyError, TypeError, ValueError):
            for line in read_lines(self._log) if self._log else ():
                files = {str(key): list(told) for key, told in line["files"].items()}
                self._logged += len(files)
                self._former |= files
                if line["folder"] == self._folder:
                    self._files |= files

    def get(self, source: Source) -> bytes | None:
        """The saved digest, or None when the file looks changed since."""
        try:
            *state, content = self._files[source.key]
            known = bytes.fromhex(content) if state == [source.size, *source.stamp] else b""
        except (KeyError, TypeError, ValueError):  # a damaged note is none
            return None
        return known if len(known) == DIGEST else None

    def sizes(self, keys: Iterable[str]) -> set[int | None]:
        """The sizes that the files of these keys had, in any folder; None among them for one that is not known."""
        noted = (self._former.get(key) for key in keys)
        return {told[0] if isinstance(told, list) and told and type(told[0]) is int else None for told in noted}

    def put(self, source: Source, data: bytes) -> bytes:
        """Store and return the digest of `data`, the bytes of `source`."""
        content = digest(data)
        self.learn({source.key: [source.size, *source.stamp, content.hex()]})
        return content

    def learn(self, news: dict[str, list]) -> None:
        """Add the digests that another process computed."""
        self._files |= news
        self.news |= news

    def read(self, source: Source, reader: Reader) -> bytes:
        """The digest of the image, which is read if it looks changed; UNREADABLE when it cannot be read."""
        saved = self.get(source)
        if saved is not None:
            return saved
        try:
            return self.put(source, reader.read(source))
        except OSError:
            return UNREADABLE

    def archive(self, file: str, state: os.stat_result) -> list[Member]:
        """The members of an archive, listed again if it looks changed. Raises: as `archives.listing`."""
        now = [state.st_size, *stamp_of(state)]
        try:
            *saved, members = self._archives[file]
            known = [Member(*member) for member in members] if saved == now else None
            if known is not None and all(tuple(map(type, m)) == (str, int, int, str, bool) for m in known):
                return known
        except (KeyError, TypeError, ValueError):
            pass  # a damaged note is none
        listed = archives.listing(file)
        self._archives[file] = [*now, listed]
        self._changed = True
        return listed

    def note(self) -> None:
        """Append what is new to a log beside the file, so that a killed run loses none of it."""
        if self.news and self._log:
            with LineLog(self._log) as log:
                log.add({"folder": self._folder, "files": self.news})
            self._logged += len(self.news)
            self.news = {}

    def save(self) -> None:
        """Write what is new: to the log, or all to the file beside the collection's caches where the log is long."""
        logged = self._logged + len(self.news)
        if self._path and self._log and (self._changed or logged * FOLDED > self._folded):
            saved = {"folder": self._folder, "files": self._files, "archives": self._archives}
            write_atomic(self._path, json.dumps(saved, sort_keys=True).encode())
            self._log.unlink(missing_ok=True)
            self.news, self._changed, self._folded, self._logged = {}, False, len(self._files), 0
        else:
            self.note()
