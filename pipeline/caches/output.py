"""Writes an HDF5 file through Python: HDF5 itself crashes on a full disk, as it cannot close a file it cannot flush."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

FORMAT = ("v110", "v110")  # the first HDF5 format with checksums for its own structures


class Output:
    """The file under HDF5, for which no write ever fails: from the first failure on, writes are kept in memory.

    `check` raises that failure, so call it after each piece: then little is kept. HDF5's own file locks are not used:
    some network disks have none, and what is written here is held by the lock of its cache.
    """

    def __init__(self, handle: int) -> None:
        self._handle, self._at, self._size = handle, 0, 0
        self._failure: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raises: OSError when a write has failed."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """As of a file."""
        return self._at

    def write(self, data: bytes | memoryview) -> int:
        """As of a file that takes all of `data`."""
        start, rest = self._at, bytes(data)
        self._at += len(rest)
        self._size = max(self._size, self._at)
        try:
            while rest and self._failure is None:
                done = os.pwrite(self._handle, rest, start)  # a disk that becomes full takes a part at first
                start, rest = start + done, rest[done:]
        except OSError as error:
            self._failure = error
        if rest:
            self._kept.append((start, rest))
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data = bytearray(max(0, min(size if size >= 0 else self._size, self._size - self._at)))
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """As of a file that has all that was written."""
        end = min(self._size, self._at + len(buffer))
        data = os.pread(self._handle, max(0, end - self._at), self._at).ljust(end - self._at, b"\0")
        buffer[: len(data)] = data
        for start, kept in self._kept:
            first, last = max(start, self._at), min(start + len(kept), end)
            if first < last:
                buffer[first - self._at : last - self._at] = kept[first - start : last - start]
        self._at = end
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """As of a file."""
        self._size = self._at if size is None else size
        try:
            if self._failure is None:
                os.ftruncate(self._handle, self._size)
        except OSError as error:
            self._failure = error
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def new_file(path: Path) -> Iterator[tuple[h5py.File, Output]]:
    """A new HDF5 file at `path`, to be filled; call the `check` of the other value after each piece.

    Raises: OSError when the disk is full, or fails.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        output = Output(handle)
        with h5py.File(output, "w", libver=FORMAT) as h5:
            yield h5, output
        output.check()
    finally:
        os.close(handle)
