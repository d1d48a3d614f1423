"""What is to be known of a JPEG beside its decoder: the memory that this needs, and whether the file has its end."""

import re
import struct

START, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
MARKER = re.compile(b"\xff([^\x00\xd0-\xd8\xff])")  # not of restarts; what is coded has zeros after 0xff
FILLERS = [bytes([value]) * 1024 for value in (0x00, 0x33, 0x55, 0x92, 0xAA, 0xDB, 0xFE)]  # no markers in them
FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}  # markers of frames; the other three mark tables
AT_ONCE = {0xC0, 0xC1, 0xC9}  # frames that can be decoded row by row, if one scan holds all of their components


def coefficients(data: bytes) -> float:
    """Bytes per pixel that the decoder holds at every output size: 0 when it decodes row by row.

    It holds a progressive JPEG, or one with one scan per component, as a whole, in numbers of two bytes. A damaged
    header counts as the worst case: 6 bytes.
    """
    at, share, rows = 2, 3.0, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 1 or 0xD0 <= marker <= 0xD8:  # padding, and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if marker in FRAMES and len(body) > 5:
            factors = [(body[i] >> 4, body[i] & 15) for i in range(7, len(body), 3)]
            across, down = max((f[0] for f in factors), default=1), max((f[1] for f in factors), default=1)
            share = sum(a * b for a, b in factors) / max(across * down, 1)
            rows, components = marker in AT_ONCE, len(factors)
        elif marker == 0xDA:
            return 0.0 if rows and body[:1] == bytes([components]) else 2 * share
        at += 2 + length
    return 2 * share


def scans(data: bytes, most: int) -> int:
    """The number of a JPEG's scans, each of which goes over the whole picture; counted a little beyond `most`."""
    if data.count(SCAN) <= most:  # thumbnails included
        return data.count(SCAN)
    at, found = 2, 0
    while found <= most and (marker := MARKER.search(data, at)) and marker[1] != END[1:]:
        found += marker[1] == SCAN[1:]
        at = marker.end()
        if marker[1] != b"\x01":
            at += int.from_bytes(data[at : at + 2], "big")  # what follows a scan's header holds no markers
    return found


def lacks_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its last scan, as after a download that broke off, or by a bad writer."""
    return data.startswith(START) and data.find(END, max(0, data.rfind(SCAN))) < 0


def endings(data: bytes) -> list[bytes]:
    """A JPEG without an end marker, with one; and with bits before it that matter only where some are missing."""
    picture = data.removesuffix(END[:1])  # the first half of the marker may be there
    return [picture + filler + END for filler in (b"", *FILLERS)]
