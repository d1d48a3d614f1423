"""Decodes the user's images safely: any common format, turned upright, converted to 8-bit RGB.

A small file may unpack to any number of pixels. So the memory that decoding needs is computed from the header first.
Large JPEGs are decoded at a half, a quarter or an eighth of their size; other images that need too much are refused.
The messages here become reasons of rejects: they stay as they are.
"""

import io
import warnings
import zlib

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.sources import jpeg, kinds

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
MAX_PIXELS = 120_000_000
MAX_MEMORY = 210_000_000  # most bytes for decoding one image, its file included
MIN_SIDE = 64
ROWS = 1 << 18  # pixels converted at a time
# Bytes per pixel: of Pillow's copy, by mode (4 for other modes), and of a codec's own buffers (measured).
OWN = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
BESIDE = {"WEBP": 10, "AVIF": 9, "HEIF": 7}
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}

pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


class UnusableError(Exception):
    """Raised for an image that cannot be used; the message says why, in a few words."""


def read(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Decode an image of unknown origin to RGB u8 [H, W, 3].

    EXIF rotation is applied. Transparency is put on white. CMYK, palette, grey and 16-bit images are converted. Of an
    animation the first frame is taken. Size and memory are checked before decoding; `reduction` tells how much smaller
    a large JPEG becomes.
    Raises: UnusableError when the data is no image, truncated, damaged, too large or too small.
    """
    if not data:
        raise UnusableError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large images and odd metadata; these are checked below
        try:
            rgb, (turn, mirrored) = _decoded(data, max_pixels, min_side)
            rgb = np.rot90(rgb, turn)
            return np.ascontiguousarray(rgb[:, ::-1] if mirrored else rgb)
        except UnidentifiedImageError:
            known, what = f"not a picture in a known format ({', '.join(FORMATS)})", kinds.unreadable(data)
            raise UnusableError(f"{what}: {known}; {kinds.WAY_OUT}" if what else known) from None
        except Image.DecompressionBombError:
            raise UnusableError(f"more than {max_pixels / 1e6:.0f} million pixels; save it smaller") from None
        except MemoryError:
            raise UnusableError("too large for this machine's memory; save it smaller") from None
        except UnusableError:
            raise
        except Exception as error:
            # for damaged files Pillow's decoders raise errors of any type; none of them is an error of this program
            raise UnusableError(f"damaged or truncated picture ({str(error)[:80] or type(error).__name__})") from None


def _decoded(data: bytes, max_pixels: int, min_side: int) -> tuple[NDArray[np.uint8], tuple[int, bool]]:
    """RGB u8 [H, W, 3] as stored in the file, and how to turn it; the decoder's own copy is freed."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size, max_pixels, min_side)
        _check_memory(image, data)
        try:
            image.load()
        except OSError:
            if not jpeg.lacks_end(data) or not _is_complete(data):
                raise
            return _decoded(data + jpeg.END, max_pixels, min_side)
        return _plain(image), TURNS.get(_orientation(image), (0, False))


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG lacks nothing but its end marker: then what is put before that changes no pixel."""
    seen = set()
    for ended in jpeg.endings(data):
        try:
            with Image.open(io.BytesIO(ended), formats=("JPEG",)) as image:
                _check_memory(image, ended)
                seen.add(zlib.crc32(image.tobytes()))
        except OSError:
            return False
    return len(seen) == 1


def reduction(data: bytes) -> float:
    """The ratio of an image's own side to the side that `read` returns: 1 except for very large JPEGs."""
    if not data.startswith(jpeg.START):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            full = max(image.size)
            _check_memory(image, data)
            return full / max(image.size)


def _check_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnusableError(f"{width}x{height} pixels, more than {max_pixels / 1e6:.0f} million; save it smaller")
    if min(size) < min_side:
        raise UnusableError(f"{width}x{height} pixels, shorter side under {min_side}")


def _check_memory(image: Image.Image, data: bytes) -> None:
    """Set a JPEG to be decoded so small that it fits. Raises: UnusableError when an image does not fit."""
    (width, height), kind = image.size, "JPEG" if image.format == "MPO" else str(image.format)
    bytes_per_pixel = OWN.get(image.mode, 4) + 3 + BESIDE.get(kind, 0)
    whole = len(data) + _tile(image)  # bytes needed at every scale
    if kind == "JPEG":
        whole += int(width * height * jpeg.coefficients(data))
    for scale in (1, 2, 4, 8) if kind == "JPEG" else (1,):
        need = whole + width * height // scale**2 * bytes_per_pixel
        if need <= MAX_MEMORY:
            if scale > 1:
                image.draft(None, (width // scale, height // scale))
            return
    most = max(0, MAX_MEMORY - len(data)) // bytes_per_pixel / 1e6
    raise UnusableError(
        f"{width}x{height} pixels of {kind} take {need / 1e6:.0f} MB to decode, more than "
        f"{MAX_MEMORY / 1e6:.0f} MB; save it as a plain JPEG, or of at most {most:.0f} million pixels"
    )


def _tile(image: Image.Image) -> int:
    """Bytes that a TIFF unpacks at a time: a tile may be larger than the image, a strip as large as it."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return 0
    width, height = image.size
    sides = [tags.get(322), tags.get(323)] if 322 in tags else [width, min(tags.get(278, height), height)]
    depth = max(tags.get(258, (8,))) if isinstance(tags.get(258, (8,)), tuple) else 8
    turned = 4 * width * height if tags.get(274, 1) != 1 else 0  # Pillow turns a TIFF when it loads it
    return turned + int(np.prod([float(side or 0) for side in sides])) * int(tags.get(277, 1)) * int(depth) // 8


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a good image with broken EXIF data is still usable
        return 1


def _plain(image: Image.Image) -> NDArray[np.uint8]:
    """RGB u8 [H, W, 3] of a decoded image, converted a few rows at a time."""
    width, height = image.size
    step = max(1, ROWS // width)
    blocks = [(0, top, width, min(top + step, height)) for top in range(0, height, step)]
    numbers = image.mode.startswith("I") or image.mode == "F"
    scale = _scale(image, blocks) if numbers else 1.0
    out = np.empty((height, width, 3), np.uint8)
    for box in blocks:
        block = image.crop(box)
        out[box[1] : box[3]] = _grey(block, scale) if numbers else _colours(block)
    return out


def _scale(image: Image.Image, blocks: list[tuple[int, int, int, int]]) -> float:
    """The factor that brings the values of a grey image to 0..255."""
    top = max(float(np.nanmax(np.asarray(image.crop(box), np.float32), initial=0.0)) for box in blocks)
    if image.mode == "F":
        return 255.0 if top <= 1 else 1.0
    return 1 / 257 if top > 255 else 1.0


def _grey(image: Image.Image, scale: float) -> NDArray[np.uint8]:
    values = np.nan_to_num(np.asarray(image, np.float32)) * scale
    return np.clip(values, 0, 255).round().astype(np.uint8)[..., None]


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))
