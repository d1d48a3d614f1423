"""Zip files of unknown origin: no member is unpacked beyond the size it claims; the list of members is bounded."""

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what Python unpacks piece by piece; bzip2 and LZMA it does not
LIST = 1 << 24  # bytes of the list of members, which zipfile reads whole
PIECE = 1 << 20  # bytes unpacked at once
MEMBERS = 200_000  # of any archive
PACKINGS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA", 9: "deflate64", 93: "zstd", 95: "xz"}


class _Pieces(io.RawIOBase):
    """A file that gives no more than LIST bytes at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell  # type: ignore[method-assign]

    def read(self, size: int = -1) -> bytes:
        """As of any file. Raises: BadZipFile for more than LIST bytes."""
        data = self._file.read(LIST + 1 if size < 0 else min(size, LIST + 1))
        if len(data) > LIST:
            raise zipfile.BadZipFile(f"its list of members is longer than {LIST >> 20} MB; split it")
        return data

    def seekable(self) -> bool:
        """A zip file is always read out of order."""
        return True

    def close(self) -> None:
        """Close the file under it."""
        self._file.close()
        super().close()


class Zip(zipfile.ZipFile):
    """A zip file opened for reading. Raises: BadZipFile and others of zipfile's for what is none or has no end."""

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
        """Close the file, too."""
        super().close()
        if self._pieces is not None:  # there is none where the file could not be opened
            self._pieces.close()

    def bounded(self, info: zipfile.ZipInfo, limit: int) -> bytearray:
        """A member's bytes, no more than it claims.

        Raises: ValueError when it claims more than `limit`, or has less; BadZipFile and others for damage.
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
    """Raises: NotImplementedError for a member that cannot be unpacked piece by piece."""
    if info.compress_type not in PLAIN:
        how = PACKINGS.get(info.compress_type, f"method {info.compress_type}")
        raise NotImplementedError(f"packed by {how}, which cannot be bounded; pack it with deflate or without packing")
