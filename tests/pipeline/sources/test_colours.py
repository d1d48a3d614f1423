"""Metadata that changes the meaning of pixels is honoured: colour spaces, and the depth of samples."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.sources import colours, decode
from tests.support.limits import limited

SHARED = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[4] / "shared")) / "inputs"
SKIN = (224, 172, 140)  # in sRGB
# The same colour in other spaces, computed by the definitions of these (chromaticities, curves), in 8 bits.
ELSEWHERE = {"P3": (216, 174, 145), "Adobe RGB": (210, 170, 140), "BT.2020": (206, 176, 145), "linear": (190, 105, 67)}
P3 = colours.PRIMARIES[12][0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def patch(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (80, 80), colour if len(colour) > 1 else colour[0])


def png(rows: np.ndarray, kind: int, **chunks: bytes) -> bytes:
    """A PNG of 16-bit samples; `kind` is 0 grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = rows.shape[:2]
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    told = b"".join(chunk(name.encode(), value) for name, value in chunks.items())
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + told + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def with_chunks(image: Image.Image, **chunks: bytes) -> bytes:
    data = encoded(image, "PNG")
    told = b"".join(
        struct.pack(">I", len(body)) + name.encode() + body + struct.pack(">I", zlib.crc32(name.encode() + body))
        for name, body in chunks.items()
    )
    return data[:33] + told + data[33:]


def profile(spots: tuple[float, ...], exponent: float | None = None) -> bytes:
    curve = colours._curve(13) if exponent is None else np.linspace(0, 1, 4096) ** exponent
    assert curve is not None
    return colours._profile(spots, colours.D65, curve, "made here")


def press() -> bytes:
    """The ICC profile of a press whose inks are: no ink white, any black ink black, else by cyan, magenta, yellow."""
    corners = {(0, 0, 0): (255, 128, 128), (1, 0, 0): (140, 91, 78), (0, 1, 0): (122, 202, 125),
               (0, 0, 1): (227, 123, 221), (1, 1, 0): (61, 150, 82), (1, 0, 1): (128, 63, 155),
               (0, 1, 1): (120, 196, 176), (1, 1, 1): (60, 128, 128)}  # fmt: skip
    grid = b"".join(bytes(corners[c, m, y] if not k else (0, 128, 128))
                    for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1))  # fmt: skip
    ramp = bytes(range(256))
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit + ramp * 4 + grid + ramp * 3
    lut += bytes(-len(lut) % 4)
    head = struct.pack(">II", 144 + len(lut), 0) + b"\x02\x40\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize(("space", "icc"), [("P3", profile(P3)), ("Adobe RGB", profile(colours.ADOBE, 563 / 256)),
                                            ("BT.2020", profile(colours.PRIMARIES[9][0]))])  # fmt: skip
def test_icc_profiles_become_srgb(kind: str, space: str, icc: bytes) -> None:
    options = {"quality": 100} if kind in ("JPEG", "AVIF", "HEIF") else {"lossless": True} if kind == "WEBP" else {}
    got = decode.picture(encoded(patch(ELSEWHERE[space]), kind, icc_profile=icc, **options))
    assert np.abs(got.rgb[40, 40].astype(int) - SKIN).max() <= 3, got
    assert got.notes == ["colours from made here"]


@pytest.mark.parametrize("name", ["p3.png", "p3.jpg", "grey12in16.png"])
def test_files_of_another_program(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("no shared inputs here")
    got = decode.picture((SHARED / name).read_bytes())
    assert np.abs(got.rgb[80, 80].astype(int) - (184 if name.startswith("grey") else SKIN)).max() <= 3
    assert len(got.notes) == 1


def test_srgb_by_any_profile_stays_as_it_is_without_a_note() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    for icc in (own, profile(colours.SRGB)):
        got = decode.picture(encoded(Image.fromarray(noise), "PNG", icc_profile=icc))
        assert (got.rgb == noise).all() and got.notes == []
    described = with_chunks(Image.fromarray(noise), sRGB=b"\0", gAMA=struct.pack(">I", 100_000))
    assert (decode.read(described) == noise).all()
    usual = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert (decode.read(with_chunks(Image.fromarray(noise), gAMA=struct.pack(">I", 45455), cHRM=usual)) == noise).all()


@pytest.mark.parametrize(
    ("space", "chunks"),
    [
        ("P3", {"cICP": bytes([12, 13, 0, 1])}),
        ("BT.2020", {"cICP": bytes([9, 13, 0, 1])}),
        ("linear", {"cICP": bytes([1, 8, 0, 1])}),
        ("linear", {"gAMA": struct.pack(">I", 100_000)}),
        ("P3", {"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)}),
        ("P3", {"cICP": bytes([12, 13, 0, 1]), "gAMA": struct.pack(">I", 100_000)}),
    ],
)
def test_what_a_png_says_by_numbers_counts(space: str, chunks: dict[str, bytes]) -> None:
    got = decode.picture(with_chunks(patch(ELSEWHERE[space]), **chunks))
    assert np.abs(got.rgb[40, 40].astype(int) - SKIN).max() <= 2 and got.notes[0].startswith("colours from"), got


def test_high_dynamic_range_is_shown_with_paper_white_as_white() -> None:
    for transfer, signal in ((16, 148), (18, 191)):  # 203 cd/m2
        got = decode.read(with_chunks(patch((signal,) * 3), cICP=bytes([9, transfer, 0, 1])))
        assert got[40, 40].min() >= 250
        assert decode.read(with_chunks(patch((signal // 2,) * 3), cICP=bytes([9, transfer, 0, 1])))[40, 40].max() < 170


def test_adobe_rgb_by_exif_counts() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    got = decode.picture(encoded(patch(ELSEWHERE["Adobe RGB"]), "JPEG", exif=exif, quality=100))
    assert np.abs(got.rgb[40, 40].astype(int) - SKIN).max() <= 3 and got.notes == ["colours from Adobe RGB"]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles_count(mode: str) -> None:
    # a curve of 1.0: light itself. 128 of 255 of light is 188 in sRGB
    white = struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(8)
    body = b"XYZ \0\0\0\0" + white + curve
    table = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    head = struct.pack(">II", 188, 0) + b"\x02\x40\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white
    icc = head + bytes(128 - len(head)) + table + body
    image = (
        Image.fromarray(np.full((80, 80), 128 * 257, np.uint16))
        if mode == "I;16"
        else patch((128, 255)[: len(mode)], mode)
    )
    got = decode.picture(encoded(image, "PNG", icc_profile=icc))
    assert np.abs(got.rgb[40, 40].astype(int) - 188).max() <= 1 and len(got.notes) == 1


def test_inks_become_colours_by_the_profile_of_their_press() -> None:
    for kind, options in (
        ("TIFF", {}),
        ("JPEG", {"quality": 100}),
    ):  # a JPEG of inks is stored inverted, as Adobe's are
        for inks, colour in (
            ((0, 0, 0, 0), (255, 255, 255)),
            ((0, 0, 0, 255), (0, 0, 0)),
            ((0, 255, 255, 0), (215, 29, 36)),
        ):
            got = decode.picture(encoded(patch(inks, "CMYK"), kind, icc_profile=press(), **options))
            assert np.abs(got.rgb[40, 40].astype(int) - colour).max() <= 4, (kind, inks, got)
            assert got.notes == ["colours from another colour space"]
    plain = decode.picture(encoded(patch((0, 255, 255, 0), "CMYK"), "JPEG", quality=100))
    assert np.abs(plain.rgb[40, 40].astype(int) - (255, 0, 0)).max() <= 3 and plain.notes == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "icc", [b"no profile", profile(P3)[:200], bytes(500), press()], ids=["text", "cut", "zeros", "inks"]
)
def test_with_a_broken_profile_colours_stay_and_it_is_said(kind: str, icc: bytes) -> None:
    options = {"quality": 100, "lossless": True} if kind != "PNG" else {}
    got = decode.picture(encoded(patch(SKIN), kind, icc_profile=icc, **options))
    assert np.abs(got.rgb[40, 40].astype(int) - SKIN).max() <= 2
    assert len(got.notes) == 1 and got.notes[0].endswith("colours as they are in the file")


RAMP = np.tile(np.linspace(0, 1, 100), (80, 1))
TONES = RAMP * 255


def samples(white: float, channels: int = 1) -> np.ndarray:
    ramp = (RAMP * white).round().astype(np.uint16)
    return np.stack([ramp] * channels, -1) if channels > 1 else ramp


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (png(samples(65535), 0), ""),
        (png(samples(4095), 0), "12-bit"),
        (png(samples(1023), 0), "10-bit"),
        (png(samples(4095), 0, sBIT=b"\x0c"), "12-bit"),
        (png(samples(16383), 0, sBIT=b"\x0e"), "14-bit"),
        (png(samples(65535), 0, sBIT=b"\x0c"), ""),
        (png(samples(4095, 3), 2), "12-bit"),
        (png(samples(16383, 3), 2, sBIT=b"\x0e\x0e\x0e"), "14-bit"),
        (png(samples(65535, 3), 2), ""),
        (png(np.dstack([samples(4095, 3), samples(0) + 65535]), 6), "12-bit"),
        (encoded(Image.fromarray(samples(4095)), "TIFF"), "12-bit"),
        (encoded(Image.fromarray(samples(16383)), "TIFF", tiffinfo={281: 16383}), "14-bit"),
        (encoded(Image.fromarray(samples(4095)), "TIFF", compression="tiff_lzw"), "12-bit"),
        (encoded(Image.fromarray(65535 - samples(65535)), "TIFF", tiffinfo={262: 0}), ""),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), ""),
        (encoded(Image.fromarray((RAMP * 1.3).astype(np.float32).clip(0, 1.05)), "TIFF"), "skip"),
        (encoded(Image.fromarray((RAMP * 255).astype(np.float32)), "TIFF"), ""),
        (encoded(Image.fromarray((RAMP * 65535).astype(np.float32)), "TIFF"), ""),
        (encoded(Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"), ""),
        (b"P5 100 80 4095\n" + samples(4095).astype(">u2").tobytes(), ""),
    ],
)
def test_samples_of_any_depth_have_the_usual_tones(data: bytes, note: str) -> None:
    got = decode.picture(data)
    if note == "skip":  # numbers that go a little beyond white are cut there
        assert got.rgb.max() == 255 and got.rgb[0, 50, 0] > 160
        return
    assert np.abs(got.rgb - TONES[..., None]).max() <= 1.5, got.rgb[0, ::33]
    assert got.notes == ([f"{note} values in 16-bit samples"] if note else [])


def test_a_dark_image_of_16_bits_that_says_so_stays_dark() -> None:
    assert decode.read(png(samples(4095), 0, sBIT=b"\x10")).max() == 16
    assert decode.read(png(samples(4095, 3), 2, sBIT=b"\x10\x10\x10")).max() <= 16


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(Image.fromarray((RAMP * 2e9).astype(np.int32)), "TIFF"), "of which white is not known; save it as"),
        (encoded(Image.fromarray((RAMP * 7).astype(np.float32)), "TIFF"), "grey values from 0 to 7, of which white is"),
        (encoded(Image.fromarray((RAMP - 9).astype(np.float32)), "TIFF"), "of which white is not known"),
        (encoded(Image.fromarray(np.full_like(RAMP, np.nan, np.float32)), "TIFF"), "none of its grey values is"),
        (png(np.dstack([samples(4095), samples(0) + 65535]), 4), "12-bit values in 16-bit samples (unknown raw mode"),
        (encoded(patch(SKIN), "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "a raw photo, which is not developed here"),
        (b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 258, 3, 1, 24) + bytes(99), "a TIFF of an unusual layout"),
    ],
)  # fmt: skip
def test_depths_that_are_not_known_are_refused_with_the_way_out(data: bytes, reason: str) -> None:
    with pytest.raises(decode.UnusableError) as error:
        decode.read(data)
    assert reason in str(error.value) and "save it as a JPEG or PNG" in str(error.value)


def test_palettes_alpha_and_single_bits() -> None:
    palette = patch(SKIN).quantize(4)
    palette.info["transparency"] = palette.getpixel((40, 40))
    assert (decode.read(encoded(palette, "PNG", transparency=palette.getpixel((40, 40)))) == 255).all()
    got = decode.read(encoded(patch(ELSEWHERE["P3"]).quantize(4), "PNG", icc_profile=profile(P3)))
    assert np.abs(got[40, 40].astype(int) - SKIN).max() <= 3
    rgba = patch((*ELSEWHERE["P3"], 255), "RGBA")
    rgba.paste((9, 9, 9, 0), (0, 0, 40, 80))
    got = decode.read(encoded(rgba, "PNG", icc_profile=profile(P3)))
    assert (got[40, 20] == 255).all() and np.abs(got[40, 60].astype(int) - SKIN).max() <= 3
    for kind in ("PNG", "TIFF"):
        bits = Image.fromarray(RAMP > 0.5)
        assert set(np.unique(decode.read(encoded(bits, kind)))) == {0, 255}
    through = png(samples(65535), 0, tRNS=struct.pack(">H", 0))
    assert decode.read(through)[0, 0, 0] == 255 and decode.read(through)[0, 1, 0] == 3


def test_odd_depths_and_profiles_stay_within_the_memory_limit(tmp_path: Path) -> None:
    wide = np.broadcast_to(np.uint16(4000), (4600, 6000, 3))
    (tmp_path / "bomb").write_bytes(png(wide, 2))
    large = profile(P3, 2.0)
    (tmp_path / "p3").write_bytes(encoded(Image.new("RGB", (6400, 4300), SKIN), "PNG", icc_profile=large))
    for name in ("bomb", "p3"):
        told, peak = limited(
            "from pipeline.sources import decode\n"
            "try:\n    print(decode.picture(open(sys.argv[1], 'rb').read()).notes)\n"
            "except decode.UnusableError as error:\n    print(error)",
            tmp_path / name,
        )
        assert peak < 300 and ("12-bit" in told or "made here" in told), (name, told, peak)
