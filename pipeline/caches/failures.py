"""Why a cache could not be read: it is damaged, it is no cache, or the system did not let us have it just now."""

import errno
import re
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import read_error


class DamagedError(UserError):
    """What HDF5 cannot read though it got every byte, or what does not have its checksum."""


class ForeignError(UserError):
    """A whole HDF5 file, or none at all, that no stage of ours has written."""


def cache_error(path: Path, error: Exception, dataset: str = "") -> UserError:
    """The one-line error for a cache file that could not be opened or read, each cause with its own words."""
    if number := _errno(error):
        if number == errno.ENOENT:
            return UserError(f"{path}: no such cache; run the stage that writes it")
        return read_error(number, path)
    where = f"{path}, dataset {dataset}" if dataset else str(path)
    return DamagedError(
        f"{where}: damaged ({error}); `hypernst verify --repair` drops what is bad, then run the stage again"
    )


def opening_error(path: Path, error: Exception) -> UserError:
    """As `cache_error`, for a file's opening: one that HDF5 can read but that says nothing of our stages is foreign."""
    if isinstance(error, OSError | KeyError | RuntimeError | MemoryError):
        return cache_error(path, error)
    return ForeignError(
        f"{path}: no cache of this program ({error}); it is left as it is: move it elsewhere, then run the stage again"
    )


def _errno(error: Exception) -> int:
    """What the system refused with; 0 when it is HDF5 itself that refuses, which never sets an errno of its own."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = re.search(r"\berrno = ([1-9]\d*)", str(error))  # h5py keeps it in the text only where a read failed
    return int(told[1]) if told else 0
