"""Where the studio keeps the portraits of one session: a folder of this user alone, emptied at its start and end."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import files, ours
from pipeline.locks import lock


@contextmanager
def session(cache: Path) -> Iterator[tuple[Path, str]]:
    """The private folder in a cache folder, held for this process, and the token of its pages.

    The token outlives the process, so that a page goes on when its server was killed and is started again.
    Raises: UserError when another studio runs on the folder.
    """
    folder = cache / ours.STUDIO
    files.make_folder(folder)
    folder.chmod(0o700)
    with lock(folder, "studio"):
        empty(folder)
        try:
            yield folder, _token(folder / ours.SESSION)
        finally:
            empty(folder)


def empty(folder: Path) -> None:
    """Remove every portrait in the folder."""
    for place in ours.portraits(folder):
        shutil.rmtree(place, ignore_errors=True)


def _token(path: Path) -> str:
    """The token in a file, which is made where there is none."""
    try:
        told = json.loads(path.read_bytes())["session"]
        if isinstance(told, str) and len(told) >= 32:
            return told
    except (OSError, ValueError, KeyError, TypeError):
        pass
    token = secrets.token_urlsafe(32)
    files.write_atomic(path, json.dumps({"session": token}).encode())
    path.chmod(0o600)
    return token
