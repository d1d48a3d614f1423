"""Files that appear whole or not at all: written under a temporary name, flushed, then renamed."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def fsync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written as a file or a folder; on success it is renamed to `path`.

    After any failure `path` keeps its old content.
    Raises: UserError when the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for item in sorted(temporary.rglob("*")) if temporary.is_dir() else ():
            fsync(item)
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    except OSError as error:
        if error.errno in _FULL | _CLOSED:
            raise disk_error(error, path) from error
        raise
    finally:
        remove(temporary)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to the file `path`, whole or not at all. Raises: UserError as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def disk_error(error: OSError, path: Path) -> UserError:
    """The UserError for a write to `path` that failed."""
    if error.errno in _FULL:
        free = shutil.disk_usage(path.parent).free / 1e6
        return UserError(
            f"{path}: no space left on the device ({free:.0f} MB free); free some space, or choose another folder"
        )
    return UserError(f"{path}: cannot be written: {error.strerror or error}; check the folder and its permissions")


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(item.stat().st_size for item in (path.rglob("*") if path.is_dir() else [path]) if item.is_file())


def sweep(folder: Path) -> None:
    """Remove the unfinished files that killed runs left in `folder`; the caller has to hold the lock."""
    for unfinished in folder.glob(".*.tmp"):
        remove(unfinished)
