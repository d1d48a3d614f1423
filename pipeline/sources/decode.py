"""Decodes the user's images safely: any common format, turned upright by EXIF data, converted to 8-bit sRGB.

A small file may unpack to any number of pixels. So the memory that decoding needs is computed from the header first.
Large JPEGs and phones' HEIC are decoded at a half, a quarter or an eighth of their size; others are refused.
The messages here become reasons of rejects: they stay as they are.
"""

import io
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.sources import colours, heic, jpeg, kinds
from pipeline.sources.colours import Conversion

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
MAX_PIXELS = 120_000_000
MAX_MEMORY = 210_000_000  # most bytes for decoding one image, its file included
MIN_SIDE = 64
ROWS = 1 << 18  # pixels converted at a time
# Bytes per pixel: of Pillow's copy, by mode (4 for other modes), and of a codec's own buffers (measured).
OWN = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
BESIDE = {"WEBP": 10, "AVIF": 9, "HEIF": 7}
PHONE, TILED = 1, 10  # beside, of a HEIC as phones write it; in all, of one of tiles that is reduced
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}

pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


class UnusableError(Exception):
    """Raised for an image that cannot be used; the message says why, in a few words."""


class Picture(NamedTuple):
    """RGB u8 [H, W, 3], and what was done to the file's values beyond unpacking them."""

    rgb: NDArray[np.uint8]
    notes: list[str]


def read(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """The RGB of `picture`: u8 [H, W, 3]. Raises: UnusableError as `picture`."""
    return picture(data, max_pixels, min_side).rgb


def picture(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Picture:
    """Decode an image of unknown origin.

    EXIF rotation is applied. Transparency is put on white. CMYK, palette and grey images and those of other colour
    spaces become sRGB; samples of other depths are brought to 8 bits. Of an animation the first frame is taken. Size
    and memory are checked before decoding; `reduction` tells how much smaller a large JPEG or HEIC becomes.
    Raises: UnusableError when the data is no image, truncated, damaged, too large or too small.
    """
    if why := kinds.too_many_parts(data) if data else "empty file":
        raise UnusableError(why)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about large images and odd metadata; these are checked below
        try:
            rgb, notes, (turn, mirrored) = _decoded(data, max_pixels, min_side)
            rgb = np.rot90(rgb, turn)
            return Picture(np.ascontiguousarray(rgb[:, ::-1] if mirrored else rgb), notes)
        except UnidentifiedImageError:
            what = kinds.unreadable(data) or (
                "a TIFF of an unusual layout or depth" if data[:2] in (b"II", b"MM") else ""
            )
            known = f"not a picture in a known format ({', '.join(FORMATS)})"
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


def _decoded(data: bytes, max_pixels: int, min_side: int) -> tuple[NDArray[np.uint8], list[str], tuple[int, bool]]:
    """RGB u8 [H, W, 3] as stored in the file, notes, and how to turn it; the decoder's own copy is freed."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size, max_pixels, min_side)
        tags = getattr(image, "tag_v2", {})
        if 50706 in tags or (330 in tags and tags.get(254, 0) == 1):  # what follows is the preview of a raw photo
            raise UnusableError(f"a raw photo, which is not developed here; {kinds.WAY_OUT}")
        scale = _scale(image, data)
        wide = _is_wide(image)
        if scale > 1 and image.format == "HEIF":
            to_srgb, small = colours.conversion(image, data), Image.fromarray(heic.reduced(data, image.size, scale))
            notes = [to_srgb.note] if to_srgb.note else []
            return _unpacked(small, lambda block: _colours(block, to_srgb)), notes, (0, False)
        try:
            image.load()
        except OSError:
            if not jpeg.lacks_end(data) or not _is_complete(data):
                raise
            return _decoded(data + jpeg.END, max_pixels, min_side)
        to_srgb, depth = colours.conversion(image, data), colours.depth(image, data)
        turn = TURNS.get(_orientation(image), (0, False))
        if image.mode.startswith("I") or image.mode == "F":
            white, note = _white(image, depth)
            rgb = _grey(image, white, to_srgb)
        elif wide and (most := _wide_white(image, depth)) < 65535:
            note, mode = f"{most.bit_length()}-bit values in 16-bit samples", image.mode
            samples = _unpacked(image, lambda block: block)
            image.close()
            _add_low_bytes(data, samples, most)
            rgb = np.empty((*samples.shape[:2], 3), np.uint8)
            for top in range(0, len(samples), step := max(1, ROWS // samples.shape[1])):
                rgb[top : top + step] = _colours(Image.fromarray(samples[top : top + step], mode), to_srgb)
        else:
            note, rgb = "", _unpacked(image, lambda block: _colours(block, to_srgb))
        return rgb, [note for note in (note, to_srgb.note) if note], turn


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG lacks nothing but its end marker: then what is put before that changes no pixel."""
    seen = set()
    for ended in jpeg.endings(data):
        try:
            with Image.open(io.BytesIO(ended), formats=("JPEG",)) as image:
                _scale(image, ended)
                seen.add(zlib.crc32(image.tobytes()))
        except OSError:
            return False
    return len(seen) == 1


def reduction(data: bytes) -> float:
    """The ratio of an image's own side to the side that `read` returns: 1 except for very large JPEGs and HEICs."""
    if not data.startswith(jpeg.START) and data[4:8] != b"ftyp":
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=("JPEG", "AVIF", "HEIF")) as image:
            full, scale = max(image.size), _scale(image, data)
            return scale if image.format == "HEIF" else full / max(image.size)


def _check_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnusableError(f"{width}x{height} pixels, more than {max_pixels / 1e6:.0f} million; save it smaller")
    if min(size) < min_side:
        raise UnusableError(f"{width}x{height} pixels, shorter side under {min_side}")


def _scale(image: Image.Image, data: bytes) -> int:
    """How many times smaller an image is decoded, so that it fits; a JPEG is set to that. Raises: UnusableError."""
    (width, height), kind = image.size, "JPEG" if image.format == "MPO" else str(image.format)
    bytes_per_pixel = OWN.get(image.mode, 4) + 3 + (PHONE if _is_of_a_phone(image) else BESIDE.get(kind, 0))
    whole = len(data) + _tile(image)  # bytes needed at every scale
    if kind == "JPEG":
        whole += int(width * height * jpeg.coefficients(data))
    tiled = kind == "HEIF" and image.mode == "RGB" and heic.tiles(data) is not None
    for scale in (1, 2, 4, 8) if kind == "JPEG" or tiled else (1,):
        need = whole + width * height // scale**2 * bytes_per_pixel
        if tiled and scale > 1:
            need = 3 * len(data) + width * height // scale**2 * TILED
        if need <= MAX_MEMORY:
            if scale > 1 and kind == "JPEG":
                image.draft(None, (width // scale, height // scale))
            return scale
    most = max(0, MAX_MEMORY - len(data)) // bytes_per_pixel / 1e6
    raise UnusableError(
        f"{width}x{height} pixels of {kind} take {need / 1e6:.0f} MB to decode, more than "
        f"{MAX_MEMORY / 1e6:.0f} MB; save it as a plain JPEG, or of at most {most:.0f} million pixels"
    )


def _is_of_a_phone(image: Image.Image) -> bool:
    """Whether it is a HEIC as phones write it: one image in 8 bits, its colours at half the size."""
    if image.format != "HEIF" or image.mode != "RGB":  # of others all frames would be looked for
        return False
    return (image.info.get("bit_depth"), image.info.get("chroma"), getattr(image, "n_frames", 1)) == (8, 420, 1)


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


def _unpacked(image: Image.Image, convert: Callable[[Image.Image], Any]) -> NDArray[np.uint8]:
    """What `convert` makes of a decoded image, u8 [H, W, channels], a few rows at a time."""
    width, height = image.size
    out = None
    for top in range(0, height, step := max(1, ROWS // width)):
        block = np.asarray(convert(image.crop((0, top, width, min(top + step, height)))))
        out = np.empty((height, width, block.shape[2]), np.uint8) if out is None else out
        out[top : top + step] = block
    assert out is not None
    return out


def _white(image: Image.Image, depth: int) -> tuple[float, str]:
    """The value of white in a grey image of many levels, and a note. Raises: UnusableError when it cannot be told."""
    # by rows, as Pillow has no extrema of all of these modes
    ends, known = [(0.0, 0.0)], False
    width, height = image.size
    for y in range(0, height, step := max(1, ROWS // width)):
        stored = np.asarray(image.crop((0, y, width, min(y + step, height))), np.float32)
        known, values = known or bool(np.isfinite(stored).any()), np.nan_to_num(stored)
        ends.append((float(values.min()), float(values.max())))
    if not known:
        raise UnusableError(f"none of its grey values is a number; {kinds.WAY_OUT}")
    low, top = min(low for low, _ in ends), max(high for _, high in ends)
    if image.mode == "F" and top <= 2 and low >= -1:  # a little beyond white and black is what resampling leaves
        return 1.0, ""
    if top > 65535 or low < -1 or (image.mode == "F" and top < 16):
        raise UnusableError(f"grey values from {low:.4g} to {top:.4g}, of which white is not known; {kinds.WAY_OUT}")
    bits = colours.bits(top, depth)
    whole = "numbers" if image.mode == "F" else "16-bit samples"
    return float((1 << bits) - 1), f"{bits}-bit values in {whole}" if bits not in (8, 16) else ""


def _grey(image: Image.Image, white: float, to_srgb: Conversion) -> NDArray[np.uint8]:
    """RGB u8 [H, W, 3] of a grey image of many levels."""
    width, height = image.size
    out = np.empty((height, width, 3), np.uint8)
    levels = np.arange(256.0) if to_srgb.greys is None else to_srgb.greys.astype(np.float64)
    negative = getattr(image, "tag_v2", {}).get(262) == 0  # Pillow leaves these TIFFs as they are
    through = image.info.get("transparency")
    for top in range(0, height, step := max(1, ROWS // width)):
        stored = np.nan_to_num(np.asarray(image.crop((0, top, width, min(top + step, height))), np.float32))
        values = np.clip(stored * (255 / white), 0, 255)
        values = np.interp(255 - values if negative else values, np.arange(256.0), levels)
        values[stored == through if isinstance(through, int) else np.zeros_like(stored, bool)] = 255
        out[top : top + step] = values.round().astype(np.uint8)[..., None]
    return out


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether the file, not decoded yet, has colours of 16 bits; Pillow decodes their upper bytes alone."""
    return any(";16" in str(tile.args) for tile in image.tile) and not image.mode.startswith("I")


def _wide_white(image: Image.Image, depth: int) -> int:
    """The value of white in an image of 16-bit colours; its alpha does not count."""
    extrema: Any = image.getextrema()
    top = max(high for _, high in extrema[: 4 if image.mode == "CMYK" else 3])
    return (1 << max(8, colours.bits((top << 8) | 255 if top else 255, depth))) - 1


def _add_low_bytes(data: bytes, samples: NDArray[np.uint8], white: int) -> None:
    """Bring 16-bit samples to u8 in place; `samples` [H, W, channels] holds their upper bytes.

    The lower ones are decoded as if the byte order were the other. Raises: UnusableError when Pillow cannot do that.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _scale(image, data)
        image.tile = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]
        try:
            image.load()
        except (ValueError, OSError) as error:
            bits = white.bit_length()
            raise UnusableError(f"{bits}-bit values in 16-bit samples ({error}); {kinds.WAY_OUT}") from None
        width, height = image.size
        for top in range(0, height, step := max(1, ROWS // width)):
            block = samples[top : top + step]
            low = np.asarray(image.crop((0, top, width, min(top + step, height))))
            whole = block.astype(np.float32) * 256 + low
            block[:] = np.clip(whole * (255 / white), 0, 255).round()


def _swapped(args: Any) -> Any:
    """A tile's raw mode with the other byte order."""
    if isinstance(args, tuple):
        return tuple(_swapped(arg) for arg in args)
    return args[:-1] + ("L" if args.endswith("B") else "B") if isinstance(args, str) and ";16" in args else args


def _colours(image: Image.Image, to_srgb: Conversion) -> NDArray[np.uint8]:
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return np.asarray(to_srgb(image))
    rgba = image.convert("RGBA")
    rgb = to_srgb(rgba.convert("RGB"))
    rgb.putalpha(rgba.getchannel("A"))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB"))
