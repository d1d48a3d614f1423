"""Tells by its first bytes what a file is, whatever its name says."""

import gzip
import re
import zlib
from typing import BinaryIO, NamedTuple

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
