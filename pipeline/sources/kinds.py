"""Tells by its first bytes what a file is, whatever its name says, and whether it has too many parts to be decoded."""

import gzip
import re
import struct
import zlib
from typing import BinaryIO, NamedTuple

from pipeline.sources import jpeg

HEAD = 512  # bytes that are looked at: the first block of a tar
IMAGE, ARCHIVE, OTHER = "image", "archive", "other"
TARS = (".tar", ".tar.gz", ".tgz")
ARCHIVES = (*TARS, ".zip")
UNREAD_ARCHIVES = (
    ".tar.xz", ".txz", ".tar.bz2", ".tbz", ".tbz2", ".tar.zst", ".tzst", ".tar.lz", ".tar.lzma", ".tar.z", ".7z",
    ".rar",
)  # fmt: skip
IMAGES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm",
    ".avif", ".heic", ".heif", ".hif", ".jp2", ".jxl",  # some of these cannot be read and become rejects
}  # fmt: skip
# Raw photos: many are TIFFs by their first bytes, of which an image decoder would take the small preview.
RAWS = {
    ".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".sr2", ".srf", ".srw", ".orf", ".raf", ".rw2", ".pef",
    ".3fr", ".iiq", ".x3f", ".erf", ".kdc", ".mrw", ".mos",
}  # fmt: skip
# Companions of photos, by the thousand: these names are believed.
COMPANIONS = {".aae", ".csv", ".html", ".ini", ".json", ".md", ".txt", ".xml", ".xmp"}
_READABLE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|P[1-6][\s#]|"
    rb"....ftyp(avi[fs]|hei[cxms]|hev[cxms]|mif1|msf1)",
    re.DOTALL,
)
# Pictures that are not decoded here, or not in each of their kinds: their first bytes, and what they are.
_UNREADABLE = (
    (rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC picture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"II\*\0....CR|....ftypcrx |FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|FOVb|\0MRM", "a raw photo"),
    (rb"8BPS", "a Photoshop picture"),
    (rb"gimp xcf", "a GIMP picture"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (rb"#\?RADIANCE|#\?RGBE", "a Radiance HDR picture"),
    (rb"II\xbc\x01", "a JPEG XR picture"),
    (rb"II\+\0|MM\0\+", "a BigTIFF picture"),
    (rb"qoif", "a QOI picture"),
    (rb"P[7Ff]\s", "a PAM or PFM picture"),
    (rb"DDS ", "a DDS picture"),
    (rb"BPG\xfb", "a BPG picture"),
    (rb"\0\0\x01\0[\x01-\x20]\0", "an icon"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", "an SVG drawing"),
)
UNREADABLE = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _UNREADABLE)
_USUAL, _QUERY = (".jpg", ".jpeg", ".png", ".webp"), re.compile("[?#&]")
WAY_OUT = "save it as a JPEG or PNG"
MOST_PARTS = 2_000  # parts before the pixels: segments, chunks, extensions, comments; usual are some dozen
MOST_NUMBERS = 250_000  # in a TIFF's tables: two for each strip or tile
MOST_SCANS = 100  # of a JPEG; usual are 1 to 12
_PADDED = re.compile(b"\xff+")
_PNM = re.compile(rb"P[1-6](?:(?:\s|#[^\r\n]*[\r\n])+\d{1,9}){2,3}")


class Kind(NamedTuple):
    """What a file is: IMAGE, ARCHIVE or OTHER. `problem` says why an image or archive is not read; "" if it is."""

    kind: str
    problem: str = ""


USUAL = Kind(IMAGE)  # made once, as it is given for nearly every file


def suffix(name: str) -> str:
    """The suffix in lower case, such as `.jpg`; what a download puts after it (`photo.jpg?width=300`) is left out."""
    base = _plain(name).lower().rpartition("/")[2]
    dot, end = base.rpartition(".")[1:]
    return dot + end if re.fullmatch(r"\.\w{1,9}", dot + end) else ""


def by_name(name: str) -> Kind | None:
    """What the name of a file decides; None where its first bytes have to tell."""
    if name.endswith(_USUAL) and not _QUERY.search(name):  # most files, of a folder that may hold a million
        return USUAL
    plain, end = _plain(name).lower(), suffix(name)
    if plain.endswith(UNREAD_ARCHIVES):
        form = "an archive of a kind that is not read; unpack it, or pack it as .zip or .tar.gz"
        return Kind(ARCHIVE, form)
    if end in RAWS:
        return Kind(IMAGE, f"a raw photo ({end}), which is not developed here; {WAY_OUT}")
    if name.lower().endswith(ARCHIVES):
        return Kind(ARCHIVE)
    if name.lower().endswith(tuple(IMAGES)):
        return Kind(IMAGE)
    return Kind(OTHER) if end in COMPANIONS else None


def by_content(file: BinaryIO, name: str) -> Kind:
    """What the first bytes of a file show. Office documents and the like, which are zips as well, are no archives here.

    Raises: OSError when the file cannot be read.
    """
    head = file.read(HEAD)
    if _READABLE.match(head) or unreadable(head):
        return Kind(IMAGE)
    form = packing(head) if not suffix(name) or _plain(name).lower().endswith(ARCHIVES) else ""
    if form == "gzip":
        file.seek(0)
        form = _unpacked(file)
    return Kind(ARCHIVE if form else OTHER)


def unreadable(head: bytes) -> str:
    """What kind of picture that is not read here these bytes begin, such as `a HEIC picture`; "" if none."""
    return next((name for pattern, name in UNREADABLE if pattern.match(head)), "")


def packing(head: bytes) -> str:
    """Whether a file that begins so is a "zip", a "gzip" (of a tar, mostly) or a "tar"; "" if it is none."""
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else ""


def _unpacked(file: BinaryIO) -> str:
    """ "tar" if a gzipped file begins as one, else ""."""
    try:
        return packing(gzip.GzipFile(fileobj=file).read(HEAD))
    except (OSError, EOFError, zlib.error):
        return ""


def _plain(name: str) -> str:
    """The name without the query of the address that it was downloaded from."""
    return re.sub(r"(\.\w{2,6})[?#&].*$", r"\1", name, flags=re.DOTALL)


def too_many_parts(data: bytes) -> str:
    """Why a picture's file is not given to a decoder, which would be at it for hours or take GB; "" if it may be."""
    count = next((count for start, count in _COUNTS.items() if data.startswith(start)), None)
    if count is not None and count(data) > MOST_PARTS:
        return f"more than {MOST_PARTS} parts beside its pixels; save it anew"
    if data.startswith(jpeg.START) and jpeg.scans(data, MOST_SCANS) > MOST_SCANS:
        return f"a JPEG of more than {MOST_SCANS} scans, which take hours; save it anew"
    return ""


def _segments(data: bytes) -> int:
    """Of a JPEG before its first scan, with the bytes between them."""
    at = found = 2
    while found <= MOST_PARTS and (padding := _PADDED.match(data, at)):
        found += padding.end() - at
        marker = data[padding.end() : padding.end() + 1]
        if marker == jpeg.SCAN[1:]:
            break
        at = padding.end() + 1 + int.from_bytes(data[padding.end() + 1 : padding.end() + 3], "big")
    return found


def _chunks(data: bytes) -> int:
    """Of a PNG, without those that hold pixels."""
    at, found = 8, 0
    while found <= MOST_PARTS and at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        found += name not in (b"IDAT", b"fdAT") or not length
        at += 12 + length
    return found


def _extensions(data: bytes) -> int:
    """Of a GIF before its first picture."""
    at, found = 13 + (3 << (data[10] % 8 + 1) if data[10:11] >= b"\x80" else 0), 0
    while found <= MOST_PARTS and data[at : at + 1] in (b"!", b"\0"):
        found += 1
        at += 1
        if data[at - 1] == 0x21:
            at += 1
            while at < len(data) and data[at]:
                at += 1 + data[at]
            at += 1
    return found


def _numbers(data: bytes) -> int:
    """Of a TIFF's first directory: as many as MOST_PARTS says stand for MOST_NUMBERS."""
    order = "<" if data[:1] == b"I" else ">"
    if len(data) < 8 or (at := struct.unpack_from(order + "I", data, 4)[0]) + 2 > len(data):
        return 0
    count = min(struct.unpack_from(order + "H", data, at)[0], (len(data) - at - 2) // 12)
    entries = [struct.unpack_from(order + "HHI", data, at + 2 + 12 * number) for number in range(count)]
    numbers = sum(length for _, kind, length in entries if kind not in (1, 2, 6, 7))  # these are kept as bytes
    return numbers * MOST_PARTS // MOST_NUMBERS


def _comments(data: bytes) -> int:
    """Of a PNM; in a header that does not end the worst case."""
    if not _PNM.match(data[: 1 << 16]):
        return MOST_PARTS + 1
    return data.count(b"#") if data[1:2] in b"123" else 0


_COUNTS = {
    jpeg.START: _segments,
    b"\x89PNG\r\n\x1a\n": _chunks,
    b"GIF8": _extensions,
    b"II*\0": _numbers,
    b"MM\0*": _numbers,
    **dict.fromkeys((b"P%d" % number for number in range(1, 7)), _comments),
}
