"""One run at a time on a folder: the second stops at once and is told who holds it. Links are never followed.

The locks are those of `flock`, which readers can share; filelock has no such locks. Windows has msvcrt's instead.
"""

import contextlib
import errno
import json
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline import ours
from pipeline.errors import UserError
from pipeline.files import disk_error

if sys.platform == "win32":
    import msvcrt

    _EXCLUSIVE, _SHARED, _NOWAIT = 1, 2, 4

    def _flock(handle: int, how: int) -> None:
        """Lock a file far behind its text, as what is locked cannot be read. Nothing is shared: readers exclude too."""
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK if how & _NOWAIT else msvcrt.LK_LOCK, 1)
else:
    import fcntl

    _EXCLUSIVE, _SHARED, _NOWAIT = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB

    def _flock(handle: int, how: int) -> None:
        fcntl.flock(handle, how)


_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # what flock says of a lock that another process has
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
# Not through a link, and without waiting for a pipe; Windows has neither.
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_mine: set[tuple[Path, int]] = set()  # folders held, and by which thread: it may take them again
_handles: set[int] = set()


@contextmanager
def lock(folder: Path, stage: str, *, nested: bool = False) -> Iterator[None]:
    """Hold a cache's or a run's folder for this process; a lock dies with its process, so a killed run blocks nobody.

    `nested`: what this thread holds already it may take again.

    Raises: UserError at once when another run holds it, naming its stage, pid and host; when there are no locks on that
    file system; when its `.lock` is not one of ours.
    """
    holder = (folder.resolve(), threading.get_ident())
    if nested and holder in _mine:
        yield
        return
    path = folder / ours.LOCK
    with _taken(path, _EXCLUSIVE | _NOWAIT) as handle:
        if not ours.is_lock(_text(handle)):
            raise UserError(
                f"{path}: not a lock of this program (it should be empty or say who runs); left as it is: "
                "move it elsewhere, or choose another folder"
            )
        _write(handle, json.dumps({"pid": os.getpid(), "stage": stage, "host": socket.gethostname()}))
        _mine.add(holder)
        try:
            yield
        finally:
            _mine.discard(holder)
            if handle in _handles:
                _write(handle, "")


@contextmanager
def lock_if_writable(folder: Path, stage: str) -> Iterator[UserError | None]:
    """As `lock`, for work that may turn out to be none: where nothing may be written, yield the error to raise if any.

    Then nobody else can be at work there under the same mount; `reading` holds it against other users.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lock(folder, stage))
            unwritable = None
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            held.enter_context(reading(folder))
            unwritable = error
        yield unwritable


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep stages from changing a cache's folder while it is read. Any number may read at once; nothing is written.

    Raises: UserError at once when a run that writes holds it, naming its stage, pid and host.
    """
    if (folder.resolve(), threading.get_ident()) in _mine:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(_taken(folder / ours.LOCK, _SHARED | _NOWAIT, os.O_RDONLY))
        except UserError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno in _TAKEN - {errno.EACCES}:
                raise
            # No stage has worked here, or locks cannot be had: then no stage works here either.
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made when missing), waiting for another process that has it.

    Raises: UserError when it is a link or no plain file, or when there are no locks on its file system.
    """
    with _taken(path, _EXCLUSIVE):
        yield


@contextmanager
def _taken(path: Path, how: int, mode: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    """A lock's file, opened and locked: the one that is there under its name, as `clean` may have removed another."""
    while True:
        with _opened(path, mode) as handle:
            _take(handle, path, how)
            if _is_there(handle, path):
                yield handle
                return


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def _opened(path: Path, mode: int) -> Iterator[int]:
    """A lock's file, open, made when missing. A child of this process closes it, or it would hold the lock on."""
    try:
        if mode & os.O_CREAT:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, mode | _CAREFULLY, 0o666)
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


def _write(handle: int, text: str) -> None:
    """Replace the text of a lock that is held: who holds it is a help for others, which a full disk may refuse."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text.encode())


def _text(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 4096)


def _take(handle: int, path: Path, how: int) -> None:
    try:
        _flock(handle, how)
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
        h = json.loads(_text(handle))
        return f"stage {h['stage']} (pid {h['pid']} on {h['host']})"
    except (ValueError, KeyError, TypeError):
        return "another run (one that only reads, such as verify, does not say its name)"


def _in_child() -> None:
    """A forked child holds none of the locks: it closes them, which leaves them to its parent."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()
    _mine.clear()


if hasattr(os, "register_at_fork"):  # else there is no fork
    os.register_at_fork(after_in_child=_in_child)
