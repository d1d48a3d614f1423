"""Pictures as users have them: any common encoding, opened carefully, turned upright, made plain 8-bit RGB."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 120_000_000
MIN_SIDE = 64


class UnusableError(Exception):
    """A picture that cannot be used; the message says why, in a few words."""


def read(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> NDArray[np.uint8]:
    """Decode a picture of unknown origin to RGB [H, W, 3] u8.

    EXIF rotation is applied, transparency laid on white, CMYK, palette, grey and 16-bit converted, the first frame
    of an animation taken. The size is checked before anything is decoded.

    Raises: UnusableError for what is no picture, is truncated or damaged, too large or too small.
    """
    if not data:
        raise UnusableError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about large pictures and odd metadata: judged below
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, max_pixels, min_side)
                image.load()
                return _plain(_upright(image))
        except UnidentifiedImageError:
            raise UnusableError(f"not a picture in a known format ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError:
            raise UnusableError(f"more than {max_pixels / 1e6:.0f} million pixels") from None
        except MemoryError:
            raise UnusableError("too large for this machine's memory") from None
        except (
            OSError,
            ValueError,
            SyntaxError,
            IndexError,
            TypeError,
            EOFError,
            OverflowError,
            RuntimeError,
        ) as error:
            # what Pillow's decoders raise for damaged files varies by format; none of it concerns the program
            raise UnusableError(f"damaged or truncated picture ({str(error)[:80] or type(error).__name__})") from None


def _check_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnusableError(f"{width}x{height} pixels, more than {max_pixels / 1e6:.0f} million")
    if min(size) < min_side:
        raise UnusableError(f"{width}x{height} pixels, shorter side under {min_side}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF must not cost an otherwise good picture
        return image


def _plain(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        top = float(np.nanmax(values, initial=0.0))
        scale = 1.0
        if image.mode == "F" and top <= 1:
            scale = 255.0
        elif image.mode != "F" and top > 255:
            scale = 1 / 257
        grey = np.clip(np.nan_to_num(values) * scale, 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))
