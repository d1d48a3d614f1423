"""Removes what the stages have put into a cache folder, by the list in `pipeline.ours`, and says what it leaves.

`make clean` runs this file with any Python, as there may be no environment.
"""

import os
import sys
from pathlib import Path

from pipeline import ours
from pipeline.errors import UserError, printable
from pipeline.files import disk_error
from pipeline.locks import lock

SHOWN = 5
PAGE = "README.md"  # the page of this project's own cache folder stays without a word


def run(cache: Path) -> int:
    """Remove what is ours in the folder `cache`, and the folders that are empty then; print what was left and why.

    Raises: UserError when another run is at work there, or something may not be removed.
    """
    if not cache.is_dir():
        _say(f"{cache}: no such folder, nothing to remove" if not cache.exists() else f"{cache}: not a folder")
        return 0
    removed, size = 0, 0
    if any(True for _ in ours.files(cache)) or ours.folders(cache):
        with lock(cache, "clean"):
            found = list(ours.files(cache))
            for path in [p for p in found if p.name != ours.SAMPLES] + [p for p in found if p.name == ours.SAMPLES]:
                try:
                    bytes_there = path.stat().st_size
                    path.unlink()
                except OSError as error:
                    raise disk_error(error, path) from error
                removed, size = removed + (path.name != ours.LOCK), size + bytes_there
            for folder in ours.folders(cache):
                if not any(folder.iterdir()):
                    folder.rmdir()
    left = _left(cache)
    _say(f"{cache}: removed {removed} files, {size / 1e6:.1f} MB")
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        _say(f"{cache}: left, as it is not what the stages made: {', '.join(left[:SHOWN])}{more}; remove it yourself")
    return 0


def _left(cache: Path) -> list[str]:
    """What lies in the folder and in ours inside it, each folder of others as one."""
    known = set(ours.folders(cache))
    found = []
    for folder in (cache, *known):
        with os.scandir(folder) as items:
            for item in items:
                path = folder / item.name
                if path not in known and not (folder == cache and item.name == PAGE):
                    found.append(f"{path.relative_to(cache)}{'/' * item.is_dir(follow_symlinks=False)}")
    return sorted(found)


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def main() -> None:
    """Clean the folder that is the only argument."""
    try:
        if not sys.argv[1]:
            raise UserError("no folder named; name the cache's with CACHE=dir", 2)
        run(Path(sys.argv[1]))
    except UserError as error:
        _say(f"make clean: {error}")
        sys.exit(error.status)


if __name__ == "__main__":
    main()
