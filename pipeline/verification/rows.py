"""What is wrong with one file of rows: checksums, digests, order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.caches.digests import labels_digest, row_digest
from pipeline.caches.failures import DamagedError
from pipeline.caches.schema import Entry
from pipeline.caches.volume import Volume
from pipeline.sources.keys import key_of

ROWS = 64  # checked at once


@dataclass
class Problem:
    """Something wrong with a file: the text for the user, and the keys it is about (none: the whole file).

    `fatal` is false when nothing is to be removed: once something else is repaired it may hold again, or it is not
    there. `partial`: the keys are not known, but the rest of the file is good. `unread`: nothing is known of it, as the
    system did not let it be read or it is not ours; then nothing is repaired.
    """

    path: Path
    text: str
    keys: list[str] = field(default_factory=list)
    fatal: bool = True
    partial: bool = False
    unread: bool = False

    def __str__(self) -> str:
        shown = ", ".join(self.keys[:5]) + (f" and {len(self.keys) - 5} more" if len(self.keys) > 5 else "")
        return f"{self.path}: {self.text}" + (f": {shown}" if self.keys else "")


def readable(volume: Volume) -> tuple[dict[str, Entry], list[Problem]]:
    """The entries that can be read, and a problem for each dataset about them that is damaged."""
    try:
        return volume.entries(), []
    except DamagedError:
        pass
    entries: dict[str, Entry] = {}
    lost: dict[str, list[str]] = {}
    for start in range(0, len(volume), ROWS):
        stop = min(start + ROWS, len(volume))
        try:
            entries |= volume.row_entries(start, stop)
        except DamagedError as fault:
            lost.setdefault(str(fault), []).append(f"{start}-{stop - 1}")
    try:
        entries |= volume.reject_entries()
    except DamagedError as fault:
        lost[str(fault)] = []
    return entries, [
        Problem(volume.path, f"{text}{', rows ' * bool(rows)}{', '.join(rows)}", partial=True)
        for text, rows in lost.items()
    ]


def check_content(path: Path) -> list[Problem]:
    """As `check_rows`, for a file that is opened here: in any process."""
    with Volume(path) as volume:
        return list(check_rows(volume, readable(volume)[0]))


def check_rows(volume: Volume, entries: dict[str, Entry]) -> Iterator[Problem]:
    """Rows with a bad checksum, by dataset, or with content of another digest than is recorded; keys out of order."""
    rows = {e.row: (key, e.digest) for key, e in entries.items() if e.row >= 0}
    keys = [key for key, _ in rows.values()]
    if volume.path.parent.suffix != ".parts" and keys != sorted(keys):
        yield Problem(volume.path, "its keys are not sorted and unique")
    lengths = {name: volume.length(name) for name in (*volume.columns, "inputs", "digest")}
    if set(lengths.values()) != {len(volume)}:
        yield Problem(volume.path, f"its datasets have unequal lengths: {lengths}, {len(volume)} keys")
        return
    bad: dict[str, list[str]] = {}
    content = volume.content
    for start in range(0, len(volume), ROWS):
        stop = min(start + ROWS, len(volume))
        blocks = _blocks(volume, start, stop)
        for i in range(start, stop) if not blocks else ():
            for name in volume.columns:
                if i in rows and not _blocks(volume, i, i + 1, name):
                    bad.setdefault(name, []).append(rows[i][0])
        broken = set().union(*bad.values())
        for i in range(start, stop):
            key, digest = rows.get(i, ("", b""))
            if not key or key in broken:
                continue
            row = {name: blocks[name][i - start] if blocks else volume.block(name, i, i + 1)[0] for name in content}
            if row_digest(row) != digest:
                bad.setdefault("any (the row's digest differs)", []).append(key)
    for name in [] if bad else (n for n in volume.columns if n not in volume.content):
        bad |= _other_labels(volume, name)
    for name, which in bad.items():
        yield Problem(volume.path, f"dataset {name} is damaged at", which)


def _other_labels(volume: Volume, name: str) -> dict[str, list[str]]:
    """The keys of rows whose labels were changed, under the dataset's name; {} when none was."""
    labels, stored = volume.block(name, 0, len(volume)), volume.dataset(name).attrs.get("digest", b"")
    if isinstance(stored, bytes) and labels_digest(labels).encode() == stored:
        return {}
    keys = volume.keys()
    return {name: [key for key, label in zip(keys, labels, strict=True) if key_of(label) != key] or keys}


def _blocks(volume: Volume, start: int, stop: int, name: str = "") -> dict[str, Any]:
    """Rows start..stop of each column, or of one; {} where one is damaged."""
    try:
        return {column: volume.block(column, start, stop) for column in ([name] if name else volume.columns)}
    except DamagedError:
        return {}
