"""Remembers which files were read whole and found sound: when, and by which digest."""

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import ours
from pipeline.errors import UserError
from pipeline.files import read_json, write_atomic
from pipeline.sources.reader import stamp_of

SETTLED = 2.0  # seconds: of a file younger than this, a change may leave its times as they are


class Record:
    """The files of a cache folder that were checked, by path: size, times, inode, digest, and when that was.

    A file counts as sound while all but the last are the same. With `everything` none does. It may not be possible to
    write the record; then all is read again the next time.
    """

    def __init__(self, cache: Path, *, everything: bool = False) -> None:
        self._cache, self._path = cache, cache / ours.VERIFIED
        self._started = time.time()
        self._sound: dict[str, dict[str, Any]] = {}
        self._trusted: list[dict[str, Any]] = []  # what is told of the files that were not read again
        self._changed = False
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            saved = {} if everything else read_json(self._path).get("verified", {})
            self._sound = {str(name): dict(told) for name, told in saved.items()}

    def holds(self, file: Path, digest: str) -> bool:
        """Whether a file was found sound and has not changed since; if not it is forgotten."""
        told = self._sound.get(self._name(file))
        if told is not None and told == {**told, **_seen(file.stat(), digest)}:
            self._trusted.append(told)
            return True
        self._changed |= self._sound.pop(self._name(file), None) is not None
        return False

    def add(self, file: Path, digest: str, state: os.stat_result) -> None:
        """A file was found sound; `state` is what the system told of it before it was read."""
        if max(stamp_of(state)[:2]) / 1e9 < self._started - SETTLED:
            checked = datetime.now(UTC).isoformat(timespec="seconds")
            self._sound[self._name(file)] = {**_seen(state, digest), "checked": checked}
            self._changed = True

    def save(self) -> None:
        """Write what is known of the files that are there."""
        there = {name: told for name, told in self._sound.items() if (self._cache / name).exists()}
        if self._changed or len(there) < len(self._sound):
            with contextlib.suppress(UserError):
                write_atomic(self._path, json.dumps({"verified": there}, sort_keys=True, indent=0).encode())

    def __str__(self) -> str:
        """A line on what was not read again; "" when everything was."""
        if not self._trusted:
            return ""
        size, first = (
            sum(told["bytes"] for told in self._trusted),
            min(str(told.get("checked")) for told in self._trusted),
        )
        return (
            f"{self._cache}: {len(self._trusted)} files, {size / 1e6:,.0f} MB, look unchanged since they were found "
            f"sound (the first on {first[:10]}); `hypernst verify --all` reads them again"
        )

    def _name(self, file: Path) -> str:
        return os.path.relpath(file, self._cache)


def _seen(state: os.stat_result, digest: str) -> dict[str, Any]:
    return {"bytes": state.st_size, "stamp": list(stamp_of(state)), "digest": digest}
