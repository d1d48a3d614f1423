"""A file of many parts beside its pixels is refused before anything goes through them: they would take hours or GB."""

import io
import os
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pipeline.sources import decode, kinds, reader

RAMP = Image.fromarray(np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8))


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def beside(kind: str, at: int, part: bytes, **options: object) -> Callable[[int], bytes]:
    """A picture with so many parts at a place in its file."""
    out = io.BytesIO()
    RAMP.save(out, kind, **options)
    data = out.getvalue()
    return lambda count: data[:at] + part * count + data[at:]


def strips(count: int) -> bytes:
    """A TIFF that tells of so many strips more than it has rows, in a file of few bytes."""
    table = {256: 96, 257: 96, 258: 8, 259: 1, 262: 1, 273: 96 + count * 125, 277: 1, 278: 1, 279: 96 + count * 125}
    entries = [
        struct.pack("<HHII", tag, 4, *((value, 122) if tag in (273, 279) else (1, value)))
        for tag, value in table.items()
    ]
    body = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries)
    return body + bytes(10_000 + (97 + 125 * min(count, 20)) * 4)


def scans(count: int) -> bytes:
    out = io.BytesIO()
    RAMP.save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * (count // 20) + data[-2:]


def plain(count: int) -> bytes:
    return b"P3 96 96 255\n" + b"#x\n" * count + b"1 2 3 " * 96 * 96


FILES = {
    "chunks": beside("PNG", 33, chunk(b"zzZz")),
    "packed texts": beside("PNG", 33, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(9000)))),
    "empty pixels": beside("PNG", 33, chunk(b"IDAT")),
    "segments": beside("JPEG", 2, b"\xff\xe5\0\2"),
    "padding": beside("JPEG", 2, b"\xff"),
    "comments": beside("GIF", 13 + 768, b"!\xfe\1c\0"),
    "zeros": beside("GIF", 13 + 768, b"\0"),
    "strips": strips,
    "scans": scans,
    "plain comments": plain,
    "header": beside("PPM", 3, b"#\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_many_parts_are_refused_at_once_and_some_are_read(name: str) -> None:
    assert decode.read(FILES[name](20)).shape == (96, 96, 3)
    many = FILES[name](40_000)
    start = time.process_time()
    with pytest.raises(decode.UnusableError, match=r"more than (2000 parts beside its pixels|100 scans)"):
        decode.read(many)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "PPM", "WEBP", "BMP", "AVIF", "HEIF"])
def test_usual_pictures_have_few(kind: str) -> None:
    made = beside(kind, 0, b"", icc_profile=bytes(200_000), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", comment=b"c")(
        0
    )
    assert kinds.too_many_parts(made) == ""
    for length in range(0, min(len(made), 2000), 7):  # a cut one is for its decoder to tell
        assert isinstance(kinds.too_many_parts(made[:length]), str)


def test_the_frames_behind_the_first_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(lambda _: pytest.fail("all were counted")))
    assert decode.read(beside("TIFF", 0, b"")(0)).shape == (96, 96, 3)


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="the kernel's messages may not be read here")
def test_a_file_of_the_system_that_gives_nothing_yet_is_not_waited_for() -> None:
    try:
        assert len(reader.contents("/proc/kmsg")) >= 0
    except PermissionError:
        pytest.skip("the kernel's messages may not be read here")
