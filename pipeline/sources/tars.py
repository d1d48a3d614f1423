"""Lists tars of unknown origin, header by header, with a limit on everything that a header can claim.

Python's tarfile reads long names and pax records of any length, recurses for each of them, and follows a negative size
backwards. This module knows the parts of the format that archives of images have: POSIX and GNU headers, long names,
and pax records of path and size. Sparse files are reported, not read.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple, Protocol

BLOCK = 512
RECORDS = 1 << 20  # most bytes of names and pax records before one member
HEADERS = 16  # most headers of names and pax records before one member
FAR = 1 << 62  # bytes; larger than any file
STEP = 1 << 26  # bytes skipped at a time in a gzipped tar
NAMES, LINK, PAX, COMMENTS = b"L", b"K", (b"x", b"X"), b"g"
FILES, EMPTY = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6")  # kinds of members with content, and without


class File(Protocol):
    """The methods that are used of a file, plain or gzipped."""

    def seek(self, at: int, /) -> int: ...
    def tell(self) -> int: ...
    def read(self, size: int, /) -> bytes: ...


class Entry(NamedTuple):
    """One file of a tar: its content is the `size` bytes from `at` on; `problem` says why it cannot be read, or ""."""

    name: str
    at: int
    size: int
    problem: str


def walk(file: File, limit: int = FAR) -> Iterator[Entry]:
    """Yield every file of a tar, without folders; `limit` is the most bytes that it may unpack to.

    Raises: ValueError when the tar is damaged or cut, or exceeds a limit; any error of `file`.
    """
    at, headers, overrides, records = 0, 0, dict[str, bytes](), 0
    while True:
        header = _exactly(file, at, BLOCK)
        if header == bytes(BLOCK):
            return
        size, kind = _checked(header), header[156:157]
        at += BLOCK
        if kind in (NAMES, LINK, COMMENTS, *PAX):
            headers, records = headers + 1, records + size
            if headers > HEADERS or records > RECORDS:
                raise ValueError(f"names and comments of more than {RECORDS >> 20} MB before one file")
            data = _exactly(file, at, size)
            if kind == NAMES:
                overrides["path"] = data.split(b"\0")[0]
            elif kind in PAX:
                overrides |= _records(data)
            at += _padded(size)
            continue
        size = _decimal(overrides["size"]) if "size" in overrides else size
        name = overrides.get("path", _name(header)).decode("utf-8", "surrogateescape")
        if kind != b"5" and not (kind == b"\0" and name.endswith("/")):
            yield Entry(name, at, size, _problem(kind, overrides))
        if kind == b"S":
            at = _after_map(file, header, at)
        if kind not in EMPTY:
            _skip(file, at, size, limit)
            at += _padded(size)
        headers, overrides, records = 0, {}, 0


def _exactly(file: File, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("its end is missing")
    return data


def _skip(file: File, at: int, size: int, limit: int) -> None:
    """Check that a file's content is complete, unpacking at most `limit` bytes. Raises: ValueError when it is not."""
    if at + size > limit:
        raise ValueError(f"unpacks to more than {limit / 1e9:.1f} GB, over a hundred times its size; pack it anew")
    for place in range(at + STEP, at + size, STEP):
        if isinstance(file, io.BufferedReader):
            break  # seeking in a plain file costs nothing
        file.seek(place)
        if file.tell() < place:
            break
    if size:
        _exactly(file, at + size - 1, 1)


def _checked(header: bytes) -> int:
    """The size in a header. Raises: ValueError when the checksum does not fit, or the size is impossible."""
    stored, actual = _number(header[148:156]), sum(header) - sum(header[148:156]) + 8 * 32
    if stored != actual and stored != actual - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        raise ValueError("a header is damaged")
    size = _number(header[124:136])
    if not 0 <= size < FAR:
        raise ValueError(f"a file of {size} bytes")
    return size


def _number(field: bytes) -> int:
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _decimal(text: bytes) -> int:
    if len(text) > 19 or not text.isdigit():
        raise ValueError("a pax record with a size that is none")
    return int(text)


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[156:157] != b"S" else name


def _records(data: bytes) -> dict[str, bytes]:
    """The pax records that matter: path, size, and whether the file is sparse."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at : max(space, at)])
        key, equals, value = data[space + 1 : at + length - 1].partition(b"=")
        if not equals or not space < at + length - 1 < len(data):
            raise ValueError("a damaged pax record")
        if key in (b"path", b"size"):
            records[key.decode()] = value
        elif key.startswith(b"GNU.sparse."):
            records["sparse"] = value
        at += length
    return records


def _problem(kind: bytes, overrides: dict[str, bytes]) -> str:
    if kind in (b"1", b"2"):
        return "a link inside an archive"
    if kind == b"S" or "sparse" in overrides:
        return "a sparse file inside an archive; pack it anew without --sparse"
    return "" if kind in FILES else "no file"


def _after_map(file: File, header: bytes, at: int) -> int:
    """Where the content of an old GNU sparse file begins: after the blocks that list its holes."""
    more, end = header[482], at + RECORDS
    while more:
        if at > end:
            raise ValueError("a sparse file without end")
        more = _exactly(file, at, BLOCK)[504]
        at += BLOCK
    return at


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
