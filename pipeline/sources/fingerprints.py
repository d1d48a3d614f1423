"""Remembers digests of the user's files, so that unchanged files are not read again."""

import json
import os
from pathlib import Path

from pipeline.files import write_atomic
from pipeline.hashing import digest
from pipeline.sources import archives
from pipeline.sources.archives import Member
from pipeline.sources.reader import UNREADABLE, Reader, Source


class Fingerprints:
    """The content digest of each source and the members of each archive, valid for one size and modification time."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.news: dict[str, list] = {}  # digests added since the last save
        self._changed = False
        self._files: dict[str, list] = {}
        self._archives: dict[str, list] = {}
        try:
            saved = json.loads(path.read_bytes() if path else b"{}")
            self._files, self._archives = saved["files"], saved["archives"]
        except (OSError, ValueError, KeyError, TypeError):  # without saved digests all files are read
            pass

    def get(self, source: Source) -> bytes | None:
        """The saved digest, or None when the file looks changed since."""
        size, mtime, content = self._files.get(source.key, (None, None, ""))
        return bytes.fromhex(content) if (size, mtime) == (source.size, source.mtime_ns) else None

    def put(self, source: Source, data: bytes) -> bytes:
        """Store and return the digest of `data`, the bytes of `source`."""
        content = digest(data)
        self.learn({source.key: [source.size, source.mtime_ns, content.hex()]})
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
        size, mtime, members = self._archives.get(file, (None, None, []))
        if (size, mtime) != (state.st_size, state.st_mtime_ns):
            members = archives.listing(file)
            self._archives[file] = [state.st_size, state.st_mtime_ns, members]
            self._changed = True
        return [Member(*member) for member in members]

    def save(self) -> None:
        """Write the digests to their file, beside the collection's caches."""
        if (self.news or self._changed) and self._path:
            saved = {"files": self._files, "archives": self._archives}
            write_atomic(self._path, json.dumps(saved, sort_keys=True).encode())
            self.news, self._changed = {}, False
