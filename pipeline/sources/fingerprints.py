"""What the user's files held when they were last read, so that unchanged ones are not read again."""

import json
import os
from pathlib import Path

from pipeline.files import write_atomic
from pipeline.hashing import digest
from pipeline.sources import archives
from pipeline.sources.archives import Member
from pipeline.sources.reader import UNREADABLE, Reader, Source


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
