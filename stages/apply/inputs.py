"""The image that a caller names or has in memory, as a file's bytes: what stages read."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import UserError
from pipeline.files import read_error
from pipeline.sources.reader import contents


def file_of(image: Any) -> tuple[bytes, str]:
    """The bytes and the name of an image's file; images in memory become PNG files."""
    if isinstance(image, bytes):
        return image, f"image-{hashlib.sha256(image).hexdigest()[:8]}"
    if isinstance(image, str | Path):
        try:
            return contents(str(image)), Path(image).name
        except FileNotFoundError:
            raise UserError(f"{image}: is not a file; expected an image", 2) from None
        except OSError as error:
            if error.errno:
                raise read_error(error.errno, Path(image)) from error
            raise UserError(f"{image}: cannot be read ({error.strerror})", 2) from error
    if isinstance(image, np.ndarray):
        fits = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)))
        if not fits or not image.size:
            raise UserError(
                f"an array {image.dtype} {list(image.shape)}; expected uint8 [H, W], [H, W, 3] or [H, W, 4]", 2
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise UserError(f"a {type(image).__name__}; expected a path, a PIL image, an array or a portrait", 2)
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        upright = upright.convert("RGB")
    written = io.BytesIO()
    upright.save(written, "PNG", compress_level=1)
    data = written.getvalue()
    return data, f"image-{hashlib.sha256(data).hexdigest()[:8]}.png"
