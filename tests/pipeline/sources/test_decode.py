"""Images of unknown origin: every common encoding comes out upright and plain; nothing else is accepted."""

import io
import random
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.sources import decode, heic, jpeg
from tests.support.limits import limited

SIZE = (96, 80)


def gradient() -> Image.Image:
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
     ("JPEG", "L"), ("WEBP", "RGB"), ("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("BMP", "RGB"), ("PPM", "RGB"),
     ("HEIF", "RGB"), ("HEIF", "L")],
)  # fmt: skip
def test_common_encodings(kind: str, mode: str) -> None:
    image = gradient().convert(mode)
    rgb = decode.read(encoded(image, kind))
    assert rgb.shape == (SIZE[1], SIZE[0], 3) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(float) - np.asarray(image.convert("RGB"))).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
             5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
             8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = gradient().transpose(turns[orientation]) if orientation > 1 else gradient()
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (decode.read(encoded(stored, "PNG", exif=exif)) == np.asarray(gradient())).all()


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
     (encoded(gradient(), "JPEG")[:600], "truncated"), (encoded(gradient().resize((16, 16)), "PNG"), "under 64")],
)  # fmt: skip
def test_unusable_images_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(decode.UnusableError, match=reason):
        decode.read(data)


@settings(deadline=None)
@given(st.sampled_from("JPEG PNG GIF WEBP TIFF BMP AVIF HEIF".split()), st.integers(0, 10**6), st.binary(max_size=40))
def test_damage_never_escapes(kind: str, place: int, junk: bytes) -> None:
    data = bytearray(encoded(gradient(), kind))
    data[place % len(data) : place % len(data) + len(junk)] = junk
    try:
        rgb = decode.read(bytes(data))
    except decode.UnusableError:
        return
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3


def flat(side: int, mode: str, kind: str, **options: object) -> bytes:
    """An image of one colour: only a few bytes."""
    if mode == "I;16":
        return encoded(Image.fromarray(np.full((side, side), 300, np.uint16)), kind, **options)
    colour = 128 if mode == "L" else (90, 120, 200, 255)[: len(mode)]
    return encoded(Image.new(mode, (side, side), colour), kind, **options)


READ = """from pipeline.sources import decode
try:
    print(decode.read(open(sys.argv[1], 'rb').read()).shape)
except decode.UnusableError as error:
    print(error)
"""
QUICK = {"quality": 20, "enc_params": {"preset": "ultrafast"}}  # to be made; they are read alike
BOMBS = [(10900, "I;16", "PNG", {"compress_level": 1}), (10900, "RGBA", "PNG", {"compress_level": 1}),
         (10900, "RGB", "JPEG", {"progressive": True}), (10900, "RGB", "JPEG", {}), (10900, "L", "JPEG", {}),
         (7000, "RGB", "WEBP", {"method": 0}), (4000, "RGBA", "WEBP", {"method": 0}),
         (6000, "RGB", "AVIF", {"speed": 10}), (10900, "L", "GIF", {}), (4500, "RGBA", "HEIF", QUICK),
         (9000, "RGB", "TIFF", {"compression": "tiff_deflate"})]  # fmt: skip


@pytest.mark.parametrize(("side", "mode", "kind", "options"), BOMBS)
def test_a_bomb_is_read_small_or_refused_within_the_memory_limit(
    side: int, mode: str, kind: str, options: dict, tmp_path: Path
) -> None:
    (tmp_path / "bomb").write_bytes(flat(side, mode, kind, **options))
    said, peak = limited(
        READ,
        tmp_path / "bomb",
    )
    assert peak < 300, (said, peak)
    if kind == "JPEG" and not options:
        assert said.startswith(f"({side // 2}, {side // 2}, 3)")
    elif "to decode" in said:
        assert re.search(r"MB to decode, more than 210 MB; save it as a plain JPEG, or of at most \d+ million", said)
    else:
        assert said.startswith(f"({side}, {side}, 3)")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_large_turned_image_stays_within_the_limit(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    (tmp_path / "large").write_bytes(encoded(Image.new("RGB", (6500, 4200), "teal"), kind, exif=exif, **options))
    said, peak = limited(
        READ,
        tmp_path / "large",
    )
    assert peak < 300 and (said == "(6500, 4200, 3)" if kind == "PNG" else "to decode, more than" in said), (said, peak)


def test_a_phones_heic_is_read_upright_and_one_that_lies_about_its_size_stays_within_the_limit(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = gradient().transpose(Image.Transpose.ROTATE_90)
    rgb = decode.read(encoded(turned, "HEIF", exif=exif.tobytes(), quality=95))
    assert np.abs(rgb.astype(float) - np.asarray(gradient())).mean() < 6
    phones = {"24": encoded(Image.new("RGB", (5712, 4284), "teal"), "HEIF", exif=exif.tobytes(), **QUICK)}
    phones["lie"] = bytes(phones["24"]).replace(struct.pack(">II", 5712, 4284), struct.pack(">II", 8064, 6048))
    phones["29"] = encoded(Image.new("RGB", (5632, 5120), "teal"), "HEIF", exif=exif.tobytes(), tile_size=512, **QUICK)
    expected = {"24": "(5712, 4284, 3)", "lie": "of at most 26 million pixels", "29": "(2816, 2560, 3)"}
    for name in expected:
        (tmp_path / name).write_bytes(phones[name])
        said, peak = limited(READ, tmp_path / name)
        assert peak < 300 and expected[name] in said, (said, peak)
    large = flat(4500, "RGB", "HEIF", quality=1)
    size = large.index(b"ispe") + 8
    (tmp_path / "liar").write_bytes(large[:size] + struct.pack(">II", 100, 100) + large[size + 8 :])
    said, peak = limited(
        READ,
        tmp_path / "liar",
    )
    assert peak < 300 and "damaged" in said, (said, peak)


def test_a_large_heic_of_tiles_is_read_smaller_and_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    image = Image.fromarray(noise).resize((500, 700), Image.Resampling.BICUBIC)
    deep = io.BytesIO()  # 10 bits
    pillow_heif.from_bytes("RGB;16", (500, 700), (np.asarray(image).astype("u2") * 257).tobytes()).save(
        deep, tile_size=256
    )
    data = encoded(image, "HEIF", exif=exif.tobytes(), tile_size=256, quality=90)
    for picture, size in ((deep.getvalue(), (500, 700)), (data, (700, 500))):
        monkeypatch.undo()
        whole = decode.read(picture)
        assert whole.shape == (*size[::-1], 3) and np.array_equal(heic.reduced(picture, size, 1), whole)
        monkeypatch.setattr(decode, "MAX_MEMORY", 2_000_000)
        half = np.asarray(Image.fromarray(whole).reduce(2))
        assert decode.reduction(picture) == 2 and np.array_equal(decode.read(picture), half)
    with pytest.raises(decode.UnusableError, match="damaged"):
        decode.read(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    dice = random.Random(0)
    for _ in range(300):  # whatever the boxes say, they are read or not, soon
        bad = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            bad[dice.randrange(1500)] = dice.randrange(256)
        heic.tiles(bytes(bad[: dice.choice((len(bad), dice.randrange(1500)))]))


def test_large_jpegs_say_how_much_smaller_they_were_read() -> None:
    large = encoded(Image.new("RGB", (8064, 6048), "teal"), "JPEG")  # a phone's 48 million pixels
    assert decode.read(large).shape == (3024, 4032, 3) and decode.reduction(large) == 2
    assert decode.reduction(encoded(gradient(), "JPEG")) == decode.reduction(encoded(gradient(), "PNG")) == 1


def test_what_a_jpegs_decoder_keeps_is_reported_by_its_header() -> None:
    ramp = gradient()
    assert jpeg.coefficients(encoded(ramp, "JPEG")) == 0
    assert jpeg.coefficients(encoded(ramp, "JPEG", progressive=True, subsampling=2)) == 3
    assert jpeg.coefficients(encoded(ramp, "JPEG", progressive=True, subsampling=0)) == 6
    data = bytearray(encoded(ramp, "JPEG"))
    data[data.index(b"\xff\xda") + 4] = 1  # a scan of one component of three
    assert jpeg.coefficients(bytes(data)) == 3
    assert jpeg.coefficients(b"\xff\xd8") == jpeg.coefficients(b"") == 6


def tiled(side: int) -> bytes:
    """A grey TIFF, 96x80, whose one tile is `side` x `side`."""
    tile = zlib.compress(bytes(1 << 20))
    entries = {256: 96, 257: 80, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(tile)}
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(tile)) + tile + struct.pack("<H", len(entries)) + listed + bytes(4)


def test_tiles_larger_than_the_image_are_counted() -> None:
    assert decode.read(tiled(1024)).shape == (80, 96, 3)
    with pytest.raises(decode.UnusableError, match="take 900 MB to decode"):
        decode.read(tiled(30000))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def test_a_jpeg_without_its_end_marker_is_read_and_one_without_pixels_is_not(options: dict) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, **options)
    whole = out.getvalue()
    assert whole.endswith(jpeg.END) and not jpeg.lacks_end(whole)
    for cut in (1, 2):
        assert jpeg.lacks_end(whole[:-cut]) and np.array_equal(decode.read(whole[:-cut]), decode.read(whole))
    for cut in (12, 100, len(whole) // 2):
        with pytest.raises(decode.UnusableError, match="truncated"):
            decode.read(whole[:-cut])


@pytest.mark.parametrize("side", [11_000, 14_143, 60_000])
def test_a_picture_of_too_many_pixels_is_told_the_way_out(side: int) -> None:
    """Just over the limit, at 200 million and beyond what Pillow opens at all."""
    out = io.BytesIO()
    Image.new("1", (64, 64)).save(out, "PNG")
    header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 2, 0, 0, 0)
    data = (
        out.getvalue()[:8]
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + out.getvalue()[33:]
    )
    with pytest.raises(decode.UnusableError, match=r"more than 120 million.*; save it smaller"):
        decode.read(data)
