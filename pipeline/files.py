"""Files that appear whole or not at all: written under a temporary name, flushed, then renamed."""

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp", re.DOTALL)  # as `replacing` names them
# What the system says of a disk, a path or this process, whether it is read or written.
_ANY = {
    errno.EIO: "the disk or network failed (input/output error); look at the disk, then run again",
    errno.ESTALE: "the network disk has lost track of it (stale file handle); mount it anew, then run again",
    errno.EMFILE: "this process may not open any more files; raise the limit (`ulimit -n`), then run again",
    errno.ENFILE: "this machine may not open any more files; end other programs, then run again",
    errno.ENOMEM: "not enough memory for it; free some, then run again",
    errno.ELOOP: "its links lead in a circle; expected a plain file: remove or mend the link",
    errno.ETIMEDOUT: "the network disk did not answer in time; look at the connection, then run again",
    errno.ENAMETOOLONG: "its name is too long for this file system; choose shorter names of files and folders",
}
_DENIED = "may not be read by this user; have its owner or mode changed, or run as its owner"
_FOLDER = "is a folder, where a file is expected; move it elsewhere, then run again"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # what only writing meets, though a copy names its source
_READING = _ANY | {errno.EACCES: _DENIED, errno.EPERM: _DENIED, errno.EISDIR: _FOLDER}
_CLOSED = "this user may not write there; have the folder's owner or mode changed, or choose another folder"
_WRITING = _ANY | {
    errno.ENOSPC: "no space left on the device; free some space, or choose another folder",
    errno.EDQUOT: "this user's quota of the disk is used up; remove some of your files, or choose another folder",
    errno.EFBIG: "larger than a file may be there; raise the limit (`ulimit -f`), or choose another disk",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: "the file system is read-only; choose another folder, or have it mounted for writing",
    errno.ENOTDIR: "a part of its path is no folder; choose another folder",
    errno.EEXIST: "a file is where its folder should be, or a link to nothing; move it, or choose another folder",
    errno.EISDIR: "a folder is where the file should be; move that folder, or choose another name",
    errno.ENOENT: "its folder has gone; look at the disk, then run again",
}


def fsync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and those on the way to it, where they are missing, so that they outlast a loss of power."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync(folder.parent)


def check_place(path: Path, inputs: Iterable[Path] = ()) -> None:
    """For commands that compute for a while before they write.

    Raises: UserError(2) when a folder or a device is where the file `path` should be, a file where one of its folders
    should, or when it is one of the `inputs`.
    """
    if path.is_file() and any(place.is_file() and path.samefile(place) for place in inputs):
        raise UserError(f"{path}: is a file that is read, and would be lost; choose another name for what is made", 2)
    there = next((place for place in path.parents if place.exists()), path.parent)
    if (path.exists() and not path.is_file()) or not there.is_dir():
        what = "a folder is" if path.is_dir() else "a device or a pipe is" if path.exists() else f"{there} is a file"
        raise UserError(f"{path}: cannot be written, {what} there; choose another name", 2)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written as a file or a folder; whatever is there at the end goes.

    Raises: UserError when the disk is full, or does not let it be written for another reason.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        make_folder(path.parent)
        if os.path.exists(path) and not (path.is_file() or path.is_dir()):  # noqa: PTH110 - as in LineLog
            raise UserError(f"{path}: cannot be written: it is a device or a pipe; choose another name")
        yield temporary
    except OSError as error:
        if error.errno in _WRITING and _concerns(error, temporary):
            raise disk_error(error, path) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # what cannot be removed could not be written either, and that is told
            remove(temporary)


def _concerns(error: OSError, temporary: Path) -> bool:
    """Whether an error is about `temporary`, what is in it or its folders, and not about another file that was read."""
    if not isinstance(error.filename, str) or error.errno in FULL:
        return True
    path = Path(error.filename)
    return temporary in (path, *path.parents) or path in temporary.parents or path.name.startswith(".mode.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to be written as a file or a folder; on success it becomes `path`.

    Raises: UserError as `scratch`; whatever goes wrong, `path` keeps its former content. Who may read the file is what
    the umask says, also where a library wrote it for its owner alone.
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
    """Return the one-line UserError for a write to `path` that failed, each cause with its own words."""
    words = _WRITING.get(
        error.errno or 0, f"{error.strerror or error}; look at the folder and its disk, then run again"
    )
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            words = words.replace(";", f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free);", 1)
    return UserError(f"{path}: cannot be written: {words}")


def read_error(number: int, path: Path) -> UserError:
    """Return the one-line UserError for reading `path` when the system refused with errno `number`."""
    words = _READING.get(number, f"cannot be read just now ({os.strerror(number)}); look at its disk, then run again")
    return UserError(f"{path}: {words}; nothing is wrong with its content as far as is known, it is left as it is")


def new_array(path: Path, dtype: "DTypeLike", shape: tuple[int, ...], fill: int = 0) -> "np.memmap[Any, Any]":
    """Return a new .npy file as a mapped array full of `fill`, whose room on the disk is taken now.

    The system kills a process that writes to a mapped file for which the disk has no room.
    Raises: UserError when there is none.
    """
    import numpy as np

    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
        with temporary.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        if fill:
            array[:] = fill
        array.flush()
    return np.lib.format.open_memmap(path, "r+")


def _unlinked(path: str, flags: int) -> int:
    """Open a file that must not be a link; a pipe is not waited for."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


class LineLog:
    """A file of JSON lines that grows: one line per `add`, each flushed. What a kill or a full disk cut is ended first.

    Raises: UserError when it cannot be written, or is a link: another's folder could lead it to any file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if os.path.islink(path):  # noqa: PTH114 - Path's raises for names that are too long
            raise UserError(f"{path}: is a link, which is not written through; remove it, then run again")
        try:
            make_folder(path.parent)
            self._file = open(path, "ab", buffering=0, opener=_unlinked)  # noqa: SIM115 - Path has no opener
            self._write(b"" if _ends_a_line(path) else b"\n")
        except OSError as error:
            raise disk_error(error, path) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        try:
            self._write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise disk_error(error, self.path) from error

    def _write(self, data: bytes) -> None:
        while data:  # a disk that becomes full takes a part at first
            data = data[self._file.write(data) or 0 :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_plain(path: Path, most: int = -1) -> bytes:
    """The content of a plain file, or its first `most` bytes.

    Raises: OSError when the system refuses; UserError when it is a pipe or a device, which could keep us waiting.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{path}: is not a plain file; nothing was changed: remove it, then run again")
        return file.read(most)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where it is missing. A line that was cut or damaged is left out.

    Raises: UserError when the system does not let it be read.
    """
    rows = []
    try:
        data = read_plain(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(error.errno or errno.EIO, path) from error
    for line in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing, cut or damaged, or holds something else."""
    try:
        told = json.loads(read_plain(path))
    except (OSError, UserError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


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
