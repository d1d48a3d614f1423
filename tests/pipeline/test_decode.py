"""Pictures of unknown origin: every common encoding comes out upright and plain; nothing else gets through."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.sources import decode

SIZE = (96, 80)


def picture() -> Image.Image:
    ramp = np.linspace(0, 255, SIZE[0])[None, :, None] * np.ones((SIZE[1], 1, 3))
    ramp[:20, :20] = (255, 0, 0)  # a red corner, top left
    return Image.fromarray(ramp.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "P"), ("PNG", "L"), ("PNG", "1"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"),
     ("JPEG", "L"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("BMP", "RGB"), ("PPM", "RGB")],
)  # fmt: skip
def test_common_encodings(kind: str, mode: str) -> None:
    image = picture().convert(mode)
    rgb = decode.read(encoded(image, kind))
    assert rgb.shape == (SIZE[1], SIZE[0], 3) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(float) - np.asarray(image.convert("RGB"))).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
             5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = picture().transpose(turns[orientation]) if orientation > 1 else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (decode.read(encoded(stored, "PNG", exif=exif)) == np.asarray(picture())).all()


def test_sixteen_bit_grey_keeps_its_range() -> None:
    ramp = np.tile(np.linspace(0, 65535, 100).astype(np.uint16), (80, 1))
    rgb = decode.read(encoded(Image.fromarray(ramp), "PNG"))
    assert np.abs(rgb[..., 1].astype(int) - ramp // 257).max() <= 1


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((80, 80, 4), np.uint8)
    rgba[:40] = (10, 20, 30, 255)
    rgb = decode.read(encoded(Image.fromarray(rgba), "PNG"))
    assert (rgb[:40] == (10, 20, 30)).all() and (rgb[40:] == 255).all()


def test_size_is_judged_before_decoding() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(decode.UnusableError, match="million"):
        decode.read(bomb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"just some text, named .jpg", "not a picture"),
     (encoded(picture(), "JPEG")[:600], "truncated"), (encoded(picture().resize((16, 16)), "PNG"), "under 64")],
)  # fmt: skip
def test_unusable_pictures_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(decode.UnusableError, match=reason):
        decode.read(data)


@settings(deadline=None)
@given(st.sampled_from("JPEG PNG GIF WEBP TIFF BMP AVIF".split()), st.integers(0, 10**6), st.binary(max_size=40))
def test_damage_never_escapes(kind: str, place: int, junk: bytes) -> None:
    data = bytearray(encoded(picture(), kind))
    data[place % len(data) : place % len(data) + len(junk)] = junk
    try:
        rgb = decode.read(bytes(data))
    except decode.UnusableError:
        return
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
