"""Brings an image's colours to sRGB: by its ICC profile, or by what its format or EXIF data says instead of one.

It also tells the depth of samples, which their file may have hidden in larger ones.
"""

import functools
import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

MAX_PROFILE = 1 << 23  # bytes of an ICC profile; those of printing presses have 3 MB at most
GREY = ("1", "L", "LA", "La", "I", "F")
SPACES = {"CMYK": "CMYK", "LAB": "Lab"}  # of profiles, by mode of the image; RGB for other modes
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE  # by default a PNG with a large profile could not be opened
CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"sBIT")
BROKEN = "its colour profile is broken: colours as they are in the file"
NEAR = 1  # levels: a profile that moves no colour further is sRGB
D65 = (0.3127, 0.3290)
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# Chromaticities of red, green and blue, and of white if it is not D65, by their number in ITU-T H.273.
PRIMARIES: dict[int, tuple[Sequence[float], Sequence[float]]] = {
    1: (SRGB, D65),
    2: (SRGB, D65),
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), D65),
    6: ((0.63, 0.34, 0.31, 0.595, 0.155, 0.07), D65),
    7: ((0.63, 0.34, 0.31, 0.595, 0.155, 0.07), D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), D65),
    11: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), D65),
}
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50 = np.array([0.9642, 1.0, 0.8249])
PAPER_WHITE = 203.0  # cd/m2 of white in an image of high dynamic range (ITU-R BT.2408); what is brighter is clipped


@dataclass(frozen=True)
class Conversion:
    """How colours become sRGB: of colour images by `cms`, of grey ones by `greys` (a level of 0..255 for each level).

    Both are None where the colours stay as they are; `note` says what was done, or why not, if that is worth a word.
    """

    cms: ImageCms.ImageCmsTransform | None = None
    greys: NDArray[np.uint8] | None = None
    note: str = ""

    def __call__(self, image: Image.Image) -> Image.Image:
        """An image without alpha, of any mode but the numbers' ones, as RGB."""
        if self.cms is not None:
            image = image if image.mode in SPACES else image.convert("RGB")
            return self.cms.apply(image)
        rgb = image.convert("RGB")
        return rgb if self.greys is None else rgb.point(self.greys.tolist() * 3)


def conversion(image: Image.Image, data: bytes) -> Conversion:
    """How the colours of a decoded image, whose file's bytes are `data`, become sRGB."""
    mode = "L" if image.mode.startswith("I;") or image.mode in GREY else image.mode
    mode = mode if mode in ("L", *SPACES) else "RGB"
    if image.info.get("icc_profile", b"") is None:  # it could not be unpacked
        return Conversion(note=BROKEN)
    try:
        told = _described(image, data)
        profile = told or image.info.get("icc_profile") or _in_bitmap(data) or _by_exif(image) or _lab(mode)
    except (ValueError, ArithmeticError, struct.error, np.linalg.LinAlgError):
        return Conversion(note=BROKEN)
    return _converted(bytes(profile), mode) if profile else Conversion()


@functools.lru_cache(maxsize=16)
def _converted(profile: bytes, mode: str) -> Conversion:
    """The conversion of images of one mode by a profile."""
    if len(profile) > MAX_PROFILE:
        return Conversion(note=BROKEN)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space not in (("GRAY", "RGB") if mode == "L" else (SPACES.get(mode, "RGB"),)):
            return Conversion(
                note=f"its colour profile is one for {space or 'nothing'}: colours as they are in the file"
            )
        took = "L" if space == "GRAY" else mode if mode in SPACES else "RGB"
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        cms = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), took, "RGB", intent, flags)
        if mode == "LAB":
            return Conversion(cms)
        name = re.sub(r"\W+", " ", ImageCms.getProfileName(source).strip()[:40]).strip() if len(profile) else ""
        note = f"colours from {name or 'another colour space'}"
        if mode == "L":
            ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
            greys = np.asarray(cms.apply(ramp if took == "L" else ramp.convert("RGB")))[0, :, 1]
            same = np.abs(greys.astype(int) - np.arange(256)).max() <= NEAR
            return Conversion() if same else Conversion(greys=greys, note=note)
        return Conversion() if mode == "RGB" and _is_srgb(cms) else Conversion(cms, note=note)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return Conversion(note=BROKEN)


def _is_srgb(cms: ImageCms.ImageCmsTransform) -> bool:
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    moved = np.asarray(cms.apply(Image.fromarray(colours))).astype(int) - colours
    return bool(np.abs(moved).max() <= NEAR)


def _lab(mode: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes() if mode == "LAB" else b""


def _in_bitmap(data: bytes) -> bytes:
    """The profile inside a BMP, if there is one."""
    if data[:2] != b"BM" or len(data) < 138 or data[14:18] != b"\x7c\0\0\0" or data[70:74] != b"DEBM":
        return b""
    at, size = struct.unpack_from("<II", data, 126)
    return data[14 + at : 14 + at + size]


def _by_exif(image: Image.Image) -> bytes:
    """Adobe RGB, where EXIF data tells so as cameras do: by a colour space of 2, or of none and an index of R03."""
    try:
        exif = image.getexif()
        space, index = exif.get_ifd(0x8769).get(0xA001), exif.get_ifd(0xA005).get(1, "")
    except Exception:  # a good image with broken EXIF data is still usable
        return b""
    adobe = space == 2 or (space == 0xFFFF and str(index).startswith("R03"))
    return _profile(ADOBE, D65, np.linspace(0, 1, 4096) ** (563 / 256), "Adobe RGB") if adobe else b""


def _described(image: Image.Image, data: bytes) -> bytes:
    """A profile for what a PNG, AVIF or HEIF says by numbers; b"" if nothing, or if its ICC profile counts.

    Raises: ValueError or ArithmeticError for numbers that describe no colours.
    """
    if image.format in ("AVIF", "HEIF") and (found := re.search(rb"colrnclx(..)(..)..", data[: 1 << 16], re.DOTALL)):
        codes = [int.from_bytes(code, "big") for code in found.groups()]
        return b"" if "icc_profile" in image.info else _by_codes(*codes)
    if image.format != "PNG":
        return b""
    told = dict(png_chunks(data))
    if len(told.get(b"cICP", b"")) == 4:
        return _by_codes(told[b"cICP"][0], told[b"cICP"][1])
    if "icc_profile" in image.info or b"sRGB" in told or not told.keys() & {b"gAMA", b"cHRM"}:
        return b""
    exponent = 100_000 / struct.unpack(">I", told[b"gAMA"])[0] if b"gAMA" in told else 2.2
    spots = np.array(struct.unpack(">8I", told[b"cHRM"])) / 100_000 if b"cHRM" in told else np.array([*D65, *SRGB])
    # 1/2.2 is what is written for the curve of sRGB, which is none of exactly this exponent
    usual = abs(exponent - 2.2) < 0.05
    curve = _curve(13) if usual else np.linspace(0, 1, 4096) ** exponent
    assert curve is not None
    return _profile(spots[2:].tolist(), spots[:2].tolist(), curve, "the chunks gAMA and cHRM")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and contents of those of a PNG's CHUNKS that come before its pixels."""
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            return
        if name in CHUNKS:
            yield name, data[at + 8 : at + 8 + min(size, 32)]
        at += 12 + size


def depth(image: Image.Image, data: bytes) -> int:
    """The bits of a sample that the file calls significant, 0 if it tells nothing.

    That a TIFF's samples go up to some value says as much, if it is a smaller one than they could hold.
    """
    if image.format == "PNG":
        return max(dict(png_chunks(data)).get(b"sBIT", b"") or b"\0")
    if image.format == "PPM":
        return 16  # Pillow has scaled them
    tags = getattr(image, "tag_v2", {})
    told = [*np.ravel(tags.get(281, 0)), *np.ravel(tags.get(258, 0))]
    return next((n for n in (int(told[0]).bit_length(), int(told[-1])) if n not in (0, 1, 8, 16, 32)), 0)


def bits(top: float, significant: int) -> int:
    """The bits of integer samples of which the largest is `top`; the file calls `significant` bits so.

    A file may hold values of 10 or 12 bits in samples of 16 and say nothing. An image that uses not more than the
    lowest sixteenth of its range would be black.
    """
    if 0 < significant < 16 and top < 1 << significant:
        return significant
    return next((n for n in (8, 10, 12) if 0 < top < 1 << n and significant != 16), 16)


def _by_codes(primaries: int, transfer: int) -> bytes:
    """A profile for the numbers of ITU-T H.273; b"" for those of sRGB. Raises: ValueError for numbers not known."""
    if primaries not in PRIMARIES:
        raise ValueError(f"primaries {primaries}")
    spots, white = PRIMARIES[primaries]
    if (curve := _curve(transfer)) is None:
        raise ValueError(f"transfer characteristics {transfer}")
    return _profile(spots, white, curve, f"H 273 {primaries} {transfer}")


def _curve(transfer: int) -> NDArray[np.float64] | None:
    """Light, 0..1, for 4096 even steps of the signal, by the number of ITU-T H.273; None for numbers not known."""
    x = np.linspace(0, 1, 4096)
    if transfer in (1, 2, 6, 13, 14, 15):  # video is shown by the curve of screens
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    if transfer in (4, 5, 8):
        return x ** {4: 2.2, 5: 2.8, 8: 1.0}[transfer]
    if transfer == 16:  # PQ
        root = x ** (32 / 2523)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305)
        return np.minimum(10_000 * light / PAPER_WHITE, 1)
    if transfer == 18:  # HLG, on a screen of 1000 cd/m2
        scene = np.where(x <= 0.5, x**2 / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return np.minimum(1000 * scene**1.2 / PAPER_WHITE, 1)
    return None


def _profile(spots: Sequence[float], white: Sequence[float], curve: NDArray[np.float64], name: str) -> bytes:
    """An ICC profile of three primaries and one curve. Raises: ValueError or ArithmeticError for impossible numbers."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in np.reshape([*spots, *white], (4, 2)).tolist()])
    matrix = xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])
    gain = (BRADFORD @ D50) / (BRADFORD @ xyz[3])
    matrix = np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD @ matrix
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 8:
        raise ValueError("these primaries span no colours")
    text = name.encode()
    body = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(79),
        b"wtpt": _xyz(D50),
        **{tag: _xyz(matrix[:, i]) for i, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        b"rTRC": b"curv\0\0\0\0" + struct.pack(">I", len(curve)) + (curve * 65535).round().astype(">u2").tobytes(),
    }
    body |= {b"gTRC": body[b"rTRC"], b"bTRC": body[b"rTRC"]}
    at, table, content = 128 + 4 + 12 * len(body), struct.pack(">I", len(body)), b""
    for tag, value in body.items():
        table += struct.pack(">4sII", tag, at + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    head = struct.pack(">IIIIII", at + len(content), 0, 0x02400000, *(int.from_bytes(b, "big") for b in
                       (b"mntr", b"RGB ", b"XYZ "))) + bytes(12) + b"acsp" + bytes(28) + _xyz(D50)[8:]  # fmt: skip
    return head + bytes(128 - len(head)) + table + content


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
