"""What a picture's file has beside its pixels, counted before a decoder goes through it for hours or into GB."""

import re
import struct

from pipeline.sources import jpeg

MOST = 2_000  # parts before the pixels: segments, chunks, extensions, comments; usual are some dozen
MOST_NUMBERS = 250_000  # in a TIFF's tables: two for each strip or tile
MOST_SCANS = 100  # of a JPEG; usual are 1 to 12
_PADDED = re.compile(b"\xff+")
_PNM = re.compile(rb"P[1-6](?:(?:\s|#[^\r\n]*[\r\n])+\d{1,9}){2,3}")


def problem(data: bytes) -> str:
    """Why a picture's file is not looked at further; "" if it may be."""
    count = next((count for start, count in _COUNTS.items() if data.startswith(start)), None)
    if count is not None and count(data) > MOST:
        return f"more than {MOST} parts beside its pixels; save it anew"
    if data.startswith(jpeg.START) and jpeg.scans(data, MOST_SCANS) > MOST_SCANS:
        return f"a JPEG of more than {MOST_SCANS} scans, which take hours; save it anew"
    return ""


def _segments(data: bytes) -> int:
    """Of a JPEG before its first scan, with the bytes between them."""
    at = found = 2
    while found <= MOST and (padding := _PADDED.match(data, at)):
        found += padding.end() - at
        marker = data[padding.end() : padding.end() + 1]
        if marker == jpeg.SCAN[1:]:
            break
        at = padding.end() + 1 + int.from_bytes(data[padding.end() + 1 : padding.end() + 3], "big")
    return found


def _chunks(data: bytes) -> int:
    """Of a PNG, without those that hold pixels."""
    at, found = 8, 0
    while found <= MOST and at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        found += name not in (b"IDAT", b"fdAT") or not length
        at += 12 + length
    return found


def _extensions(data: bytes) -> int:
    """Of a GIF before its first picture."""
    at, found = 13 + (3 << (data[10] % 8 + 1) if data[10:11] >= b"\x80" else 0), 0
    while found <= MOST and data[at : at + 1] in (b"!", b"\0"):
        found += 1
        at += 1
        if data[at - 1] == 0x21:
            at += 1
            while at < len(data) and data[at]:
                at += 1 + data[at]
            at += 1
    return found


def _numbers(data: bytes) -> int:
    """Of a TIFF's first directory: as many as MOST says stand for MOST_NUMBERS."""
    order = "<" if data[:1] == b"I" else ">"
    if len(data) < 8 or (at := struct.unpack_from(order + "I", data, 4)[0]) + 2 > len(data):
        return 0
    count = min(struct.unpack_from(order + "H", data, at)[0], (len(data) - at - 2) // 12)
    entries = [struct.unpack_from(order + "HHI", data, at + 2 + 12 * number) for number in range(count)]
    numbers = sum(length for _, kind, length in entries if kind not in (1, 2, 6, 7))  # these are kept as bytes
    return numbers * MOST // MOST_NUMBERS


def _comments(data: bytes) -> int:
    """Of a PNM; in a header that does not end the worst case."""
    if not _PNM.match(data[: 1 << 16]):
        return MOST + 1
    return data.count(b"#") if data[1:2] in b"123" else 0


_COUNTS = {
    jpeg.START: _segments,
    b"\x89PNG\r\n\x1a\n": _chunks,
    b"GIF8": _extensions,
    b"II*\0": _numbers,
    b"MM\0*": _numbers,
    **dict.fromkeys((b"P%d" % number for number in range(1, 7)), _comments),
}
