"""One run at a time on a folder: the second stops at once and is told who holds it. Links are never followed."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import ours
from pipeline.errors import UserError
from pipeline.files import disk_error

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what flock says of a lock that another process has
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_mine: set[tuple[Path, int]] = set()  # folders held, and by which thread: it may take them again
_handles: set[int] = set()


@contextmanager
def lock(folder: Path, stage: str, *, nested: bool = False) -> Iterator[None]:
    """Hold a cache's or a run's folder for this process; a lock dies with its process, so a killed run blocks nobody.

    `nested`: what this thread holds already it may take again.

    Raises: UserError at once when another run holds it, naming its stage, pid and host; when there are no locks on that
    file system; when its `.lock` is not one of ours.
    """
    path = folder / ours.LOCK
    with _opened(path) as handle:
        holder = (folder.resolve(), threading.get_ident())
        if nested and holder in _mine:
            yield
            return
        _take(handle, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not ours.is_lock(os.pread(handle, 4096, 0)):
            raise UserError(
                f"{path}: not a lock of this program (it should be empty or say who runs); left as it is: "
                "move it elsewhere, or choose another folder"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "stage": stage, "host": socket.gethostname()}).encode(), 0)
        _mine.add(holder)
        try:
            yield
        finally:
            _mine.discard(holder)
            if handle in _handles:
                os.ftruncate(handle, 0)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made when missing), waiting for another process that has it.

    Raises: UserError when it is a link or no plain file, or when there are no locks on its file system.
    """
    with _opened(path) as handle:
        _take(handle, path, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A lock's file, open, made when missing. A child of this process closes it, or it would hold the lock on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) and os.path.lexists(path):
            raise _not_plain(path) from error
        raise disk_error(error, path) from error
    _handles.add(handle)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _not_plain(path)
        yield handle
    finally:
        if handle in _handles:  # not in a child
            _handles.discard(handle)
            os.close(handle)


def _take(handle: int, path: Path, how: int) -> None:
    try:
        fcntl.flock(handle, how)
    except OSError as error:
        if error.errno in _TAKEN:
            text = f"{path.parent}: in use by {_holder(handle)}; wait for it or stop it, then run again"
        elif error.errno in _NO_LOCKS:
            text = (
                f"{path}: no file locks on this file system ({error.strerror}), so that two runs could not be kept "
                "apart; choose a folder on a local disk, or have it mounted with locks"
            )
        else:
            text = f"{path}: could not be locked ({error.strerror}); look at its disk, then run again"
        raise UserError(text) from error


def _not_plain(path: Path) -> UserError:
    what = "a link" if path.is_symlink() else "not a plain file"
    return UserError(
        f"{path}: is {what}, expected a plain file that is locked; nothing was changed: remove it, then run again"
    )


def _holder(handle: int) -> str:
    try:
        h = json.loads(os.pread(handle, 4096, 0))
        return f"stage {h['stage']} (pid {h['pid']} on {h['host']})"
    except (ValueError, KeyError, TypeError):
        return "another run"


def _in_child() -> None:
    """A forked child holds none of the locks: it closes them, which leaves them to its parent."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()
    _mine.clear()


os.register_at_fork(after_in_child=_in_child)
