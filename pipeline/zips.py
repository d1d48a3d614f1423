"""Zip files of unknown origin: the list of members is bounded, and no member is unpacked beyond the size it claims."""

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks these piece by piece, but not bzip2 and LZMA
LIST = 1 << 24  # most bytes of the list of members, which zipfile reads at once
PIECE = 1 << 20  # bytes unpacked at a time
MEMBERS = 200_000  # most members of an archive
PACKINGS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 9: "deflate64", 93: "zstd", 95: "xz"}


class _Pieces(io.RawIOBase):
    """A file that gives at most LIST bytes per read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell  # type: ignore[method-assign]

    def read(self, size: int = -1) -> bytes:
        """Read as from any file. Raises: BadZipFile when it would give more than LIST bytes."""
        data = self._file.read(LIST + 1 if size < 0 else min(size, LIST + 1))
        if len(data) > LIST:
            raise zipfile.BadZipFile(f"its list of members is longer than {LIST >> 20} MB; split it")
        return data

    def seekable(self) -> bool:
        """Always true: a zip file is not read in order."""
        return True

    def close(self) -> None:
        """Close the underlying file."""
        self._file.close()
        super().close()


class Zip(zipfile.ZipFile):
    """A zip file opened for reading.

    Raises: BadZipFile or another error of zipfile when it is no zip file, is cut, or has more than MEMBERS members.
    """

    _pieces: _Pieces | None = None

    def __init__(self, source: Path | str | bytes) -> None:
        self._pieces = _Pieces(io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb"))  # noqa: SIM115
        try:
            super().__init__(self._pieces)
            if len(self.filelist) > MEMBERS:
                raise zipfile.BadZipFile(f"more than {MEMBERS} members; split it")
        except BaseException:
            self._pieces.close()
            raise

    def close(self) -> None:
        """Close the archive and its file."""
        super().close()
        if self._pieces is not None:  # there is none where the file could not be opened
            self._pieces.close()

    def bounded(self, info: zipfile.ZipInfo, limit: int) -> bytearray:
        """The bytes of a member, at most as many as it claims.

        Raises: ValueError when it claims more than `limit` bytes, or has fewer than it claims; BadZipFile or another
            error of zipfile when it is damaged.
        """
        judge(info)
        if info.file_size > limit:
            raise ValueError(f"{info.file_size / 1e6:.0f} MB, more than {limit / 1e6:.0f} MB")
        data = bytearray()
        with self.open(info) as file:
            while len(data) <= info.file_size and (piece := file.read(PIECE)):
                data += piece
        if len(data) != info.file_size:
            raise ValueError(f"{len(data)} bytes, expected {info.file_size}")
        return data


def judge(info: zipfile.ZipInfo) -> None:
    """Check how a member is packed. Raises: NotImplementedError when it cannot be unpacked piece by piece."""
    if info.compress_type not in PLAIN:
        how = PACKINGS.get(info.compress_type, f"method {info.compress_type}")
        raise NotImplementedError(f"packed by {how}, which cannot be bounded; pack it with deflate or without packing")
