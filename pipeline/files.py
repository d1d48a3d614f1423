"""Files that appear whole or not at all: written under a temporary name, flushed, then renamed."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp", re.DOTALL)  # as `replacing` names them
# What the system says when it does not let a file be read; none of it tells anything about what is in the file.
_READING = {
    errno.EACCES: "may not be read by this user; have its owner or mode changed, or run as its owner",
    errno.EPERM: "may not be read by this user; have its owner or mode changed, or run as its owner",
    errno.EIO: "the disk or network did not deliver it (input/output error); look at the disk, then run again",
    errno.ESTALE: "the network disk has lost track of it (stale file handle); mount it anew, then run again",
    errno.EMFILE: "this process may not open any more files; raise the limit (`ulimit -n`), then run again",
    errno.ENFILE: "this machine may not open any more files; end other programs, then run again",
    errno.ENOMEM: "not enough memory to read it; free some, then run again",
    errno.ELOOP: "its links lead in a circle; expected a plain file: remove or mend the link",
    errno.ETIMEDOUT: "the network disk did not answer in time; look at the connection, then run again",
}


def fsync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written as a file or a folder; whatever is there at the end goes.

    Raises UserError when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        if error.errno in _FULL | _CLOSED:
            raise disk_error(error, path) from error
        raise
    finally:
        remove(temporary)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to be written as a file or a folder; on success it becomes `path`.

    Raises UserError when the disk is full; whatever goes wrong, `path` keeps its former content. Who may read the file
    is what the umask says, also where a library wrote it for its owner alone.
    """
    with scratch(path) as temporary:
        yield temporary
        for item in sorted(temporary.rglob("*")) if temporary.is_dir() else ():
            fsync(item)
        if temporary.is_file():
            temporary.chmod(_usual_mode(temporary))
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)


def _usual_mode(beside: Path) -> int:
    """The mode of a new file there: asked of one, as the umask itself is told only by changing it for all threads."""
    probe = beside.with_name(f".mode{beside.name}")
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        probe.unlink()


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


def read_error(number: int, path: Path) -> UserError:
    """Return the one-line UserError for reading `path` when the system refused with errno `number`."""
    words = _READING.get(number, f"cannot be read just now ({os.strerror(number)}); look at its disk, then run again")
    return UserError(f"{path}: {words}; nothing is wrong with its content as far as is known, it is left as it is")


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    return sum(item.stat().st_size for item in (path.rglob("*") if path.is_dir() else [path]) if item.is_file())


def sweep(folder: Path) -> None:
    """Remove what killed runs left half-written in `folder`; only the holder of the lock may."""
    for stray in folder.glob(".*.tmp"):
        if temporary_of(stray.name):
            remove(stray)


def temporary_of(name: str) -> str:
    """The name of the file that `replacing` was writing under the temporary `name`; "" for any other file's."""
    found = _TEMPORARY.fullmatch(name)
    return found["name"] if found else ""


def move_aside(path: Path) -> Path:
    """Rename a file that is of no use any more to `<name>.bad`, or the next free such name, and return that."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.bad{number if number > 1 else ''}")
        if not os.path.lexists(aside):
            path.rename(aside)
            return aside
    raise AssertionError("numbers do not end")
