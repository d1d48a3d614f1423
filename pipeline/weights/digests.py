"""The sha256 of files of weights, noted in the cache folder so that large files are hashed once."""

import contextlib
import json
from functools import cache
from pathlib import Path

from pipeline import files, hashing
from pipeline.errors import UserError


def of(place: Path, folder: Path) -> str:
    """The sha256 of a file or folder as hex digits; hashed again only when a size, time or inode changed."""
    place = place.resolve()
    contents = sorted(place.rglob("*")) if place.is_dir() else [place]
    known = (item.stat() for item in contents)
    state = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in known]
    return _of(place, json.dumps(state), folder)


@cache
def _of(place: Path, state: str, folder: Path) -> str:
    note = folder / "digests" / f"{place.name}-{hashing.short_hash(str(place))}.json"
    saved = files.read_json(note)
    if saved.get("state") == state and "sha256" in saved:
        return str(saved["sha256"])
    digest = hashing.sha256(place)
    with contextlib.suppress(UserError, OSError):  # without the note the file is hashed again next time
        files.write_atomic(note, json.dumps({"state": state, "sha256": digest}).encode())
    return digest
