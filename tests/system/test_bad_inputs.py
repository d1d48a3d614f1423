"""Every kind of file a user's folder may hold: none is lost, none raises, and each reject says the right thing."""

import functools
import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from models.faces import alignment
from pipeline import images, profile, weights
from pipeline.caches import reader
from pipeline.context import Context
from pipeline.sources.scan import scan
from stages.cli.main import cli

pytestmark = pytest.mark.weights
Make = Callable[[Path], None]
BYTES_NAME = os.fsdecode(b"not-utf8-\xff.jpg")


@functools.cache
def face() -> np.ndarray:
    return images.decode(weights.path("astronaut").read_bytes())[:320, 60:380]


@functools.cache
def portrait(mark: int) -> Image.Image:
    """A photo, 320 px, with one face; `mark` makes its bytes differ from the others'."""
    rgb = face().copy()
    rgb[-8:, -8:] = 9 * mark
    return Image.fromarray(rgb)


def data(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def written(content: bytes) -> Make:
    return lambda path: (path.parent.mkdir(parents=True, exist_ok=True), path.write_bytes(content))[0]


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return data(portrait(2).transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)


def sixteen() -> bytes:
    return data(Image.fromarray(np.asarray(portrait(3).convert("L")).astype(np.uint16) * 257), "PNG")


def alpha() -> bytes:
    image = portrait(4).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    return data(image, "PNG")


def bomb() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def tar(members: dict[str, bytes | None], **options: object) -> bytes:
    """A tar; a member without content is a link out of it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content or b""), tarfile.REGTYPE if content is not None else tarfile.SYMTYPE
            info.linkname = "" if content is not None else "/etc/passwd"
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content and len(old) == len(new)
    return content.replace(old, new)


def two_faces() -> Image.Image:
    small = np.asarray(Image.fromarray(face()).resize((200, 200)))
    return Image.fromarray(np.hstack([face(), np.pad(small, ((0, 120), (0, 0), (0, 0)))]))


# What is made at a path: how, and what comes of the pictures there: path -> "" (cached) or a part of the reason.
ZOO: dict[str, tuple[Callable[[], Make], dict[str, str]]] = {
    "plain.jpg": (lambda: written(data(portrait(1))), {}),
    "turned.jpg": (lambda: written(rotated()), {}),
    "sixteen-bit.png": (lambda: written(sixteen()), {}),
    "alpha.png": (lambda: written(alpha()), {}),
    "cmyk.jpg": (lambda: written(data(portrait(5).convert("CMYK"))), {}),
    "palette.png": (lambda: written(data(portrait(6).quantize(), "PNG")), {}),
    "moving.gif": (lambda: written(data(portrait(7).quantize(), "GIF", save_all=True, append_images=[
        Image.new("P", (320, 320))])), {}),
    "moving.webp": (lambda: written(data(portrait(8), "WEBP", save_all=True, append_images=[
        Image.new("RGB", (320, 320))])), {}),
    "a.b.c..jpg": (lambda: written(data(portrait(9))), {}),
    " with  spaces .JPG": (lambda: written(data(portrait(10))), {}),
    "new\nline.jpg": (lambda: written(data(portrait(11))), {}),
    "Łódź 顔.jpg": (lambda: written(data(portrait(12))), {}),
    BYTES_NAME: (lambda: written(data(portrait(13))), {"not-utf8-\\xff.jpg": ""}),
    "deep/er/still/nested.jpg": (lambda: written(data(portrait(14))), {}),
    "border.jpg": (lambda: written(data(Image.fromarray(np.maximum(face()[60:300, 130:360], 60)))), {}),
    "two-faces.jpg": (lambda: written(data(two_faces())), {}),
    "faces.tar": (lambda: written(tar({"./in/a.jpg": data(portrait(15)), "b.txt": b"text"})), {
        "faces.tar/in/a.jpg": ""}),
    "faces.tar.gz": (lambda: written(gzip.compress(tar({"z.jpg": data(portrait(16)), "a.jpg": data(portrait(17))}))), {
        "faces.tar.gz/z.jpg": "", "faces.tar.gz/a.jpg": ""}),
    "faces.zip": (lambda: written(packed({"in/a.jpg": data(portrait(18)), "in/b.jpg": b"text", ".hidden.jpg": b""})), {
        "faces.zip/in/a.jpg": "", "faces.zip/in/b.jpg": "not a picture"}),
    "web-000.tar": (lambda: written(tar({"7.jpg": data(portrait(19)), "7.mask.png": b"x", "7.json": b"{}"})), {
        "web-000.tar/7.jpg": "", "web-000.tar/7.mask.png": "further field of the sample whose picture is '7.jpg'"}),
    "loop": (lambda: lambda path: path.symlink_to("."), {"-": ""}),
    "notes.txt": (lambda: written(b"not an input at all"), {"-": ""}),
    "empty.jpg": (lambda: written(b""), {"empty.jpg": "empty file"}),
    "text.jpg": (lambda: written(b"milk, eggs"), {"text.jpg": "not a picture in a known format"}),
    "phone.heic": (lambda: written(b"\0\0\0\x18ftypheic" + bytes(99)), {"phone.heic": "a HEIC picture: not a picture"}),
    "cut.jpg": (lambda: written(data(portrait(20))[:5000]), {"cut.jpg": "truncated"}),
    "cut.png": (lambda: written(data(portrait(21), "PNG")[:5000]), {"cut.png": "truncated"}),
    "bomb.png": (lambda: written(bomb()), {"bomb.png": "million"}),
    "stamp.png": (lambda: written(data(portrait(22).resize((16, 16)), "PNG")), {"stamp.png": "under 64"}),
    "nobody.png": (lambda: written(data(Image.new("RGB", (200, 200), "teal"), "PNG")), {"nobody.png": "no face found"}),
    "again.jpg": (lambda: written(data(portrait(23))), {}),
    "again-copy.jpg": (lambda: written(data(portrait(23))), {"again-copy.jpg": "the same file as 'again.jpg'"}),
    "dangling.jpg": (lambda: lambda path: path.symlink_to("nowhere"), {"dangling.jpg": "No such file"}),
    "ring.jpg": (lambda: lambda path: path.symlink_to("ring.jpg"), {"ring.jpg": "levels of symbolic links"}),
    "pipe.jpg": (lambda: lambda path: os.mkfifo(path), {"pipe.jpg": "not a plain file"}),
    "evil.tar": (lambda: written(tar({"../evil.jpg": data(portrait(24))})), {"evil.tar": "leads out of it: '../evil"}),
    "root.tar": (lambda: written(tar({"/evil.jpg": data(portrait(25))})), {"root.tar": "leads out of it: '/evil"}),
    "evil.zip": (lambda: written(packed({"a/../../e.jpg": b""})), {"evil.zip": "leads out of it: 'a/../../e"}),
    "link.tar": (lambda: written(tar({"passwd.jpg": None})), {"link.tar/passwd.jpg": "a link inside an archive"}),
    "cut.tar": (lambda: written(tar({"a.jpg": b"1" * 999, "b.jpg": b"2" * 999})[:1536]), {"cut.tar": "cut archive"}),
    "cut.tgz": (lambda: written(gzip.compress(tar({"a.jpg": data(portrait(26))}))[:5000]), {"cut.tgz": "cut archive"}),
    "no.tar": (lambda: written(b"text"), {"no.tar": "damaged or cut archive"}),
    "no.zip": (lambda: written(b"text"), {"no.zip": "damaged or cut archive"}),
    "twice.tar": (lambda: written(tar({"a.jpg": b"1", "./a.jpg": b"2"})), {"twice.tar": "holds 'a.jpg' twice"}),
    "bad.zip": (lambda: written(replaced(packed({"a.jpg": b"some bytes"}), b"some bytes", b"same bytes")), {
        "bad.zip/a.jpg": "cannot be read: damaged in the archive (Bad CRC-32"}),
}  # fmt: skip
EXPECTED = {path: why for name, (_, outcome) in ZOO.items() for path, why in (outcome or {name: ""}).items()}
EXPECTED.pop("-")  # where nothing is expected to come of it


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("zoo")
    folder = base / "zoo"
    ctx = Context(profile.load("portable"), cache=base / "cache", content=folder, style=base / "style.jpg")
    ctx.content.mkdir()
    ctx.style.write_bytes(data(portrait(1)))
    for name, (make, _) in ZOO.items():
        make()(ctx.content / name)
    words = ["align", f"--cache={ctx.cache}", f"--content={ctx.content}", f"--style={ctx.style}", "--device=cpu"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0 and "Traceback" not in result.output, result.output
    rejected = sum(map(bool, EXPECTED.values()))
    counts = f"{len(EXPECTED)} inputs = {len(EXPECTED) - rejected} cached + {rejected} rejected"
    assert f"align content: {counts}" in result.stderr
    return ctx


def rejects(ctx: Context) -> dict[str, str]:
    lines = (ctx.cache / "content/rejects.jsonl").read_text().splitlines()
    return {line["key"]: line["reason"] for line in map(json.loads, lines)}


def test_nothing_is_lost(aligned: Context) -> None:
    keys = {source.path: source.key for source in scan(aligned.content)}
    assert set(keys) == set(EXPECTED)
    assert sorted([*reader.keys(aligned.file("content", "images")), *rejects(aligned)]) == sorted(keys.values())


@pytest.mark.parametrize("path", EXPECTED)
def test_each_is_cached_or_rejected_for_the_right_reason(aligned: Context, path: str) -> None:
    key = next(source.key for source in scan(aligned.content) if source.path == path)
    if EXPECTED[path]:
        assert EXPECTED[path] in rejects(aligned)[key]
        return
    row, plain = reader.read_rows(aligned.file("content", "images"), [key, "plain"], ["image", "path", "quad", "note"])
    assert row["path"] == path
    image = images.decode(row["image"]).astype(float)
    if path == "border.jpg":
        assert alignment.coverage(row["quad"], 230, 240) < 0.95
        assert (image.max(2) < 12).mean() < 0.001, "mirrored, not black"
    elif path == "two-faces.jpg":
        assert "2 faces: the largest kept" in row["note"]
    else:
        wanted = images.decode(plain["image"]).astype(float)
        if path == "sixteen-bit.png":
            wanted = wanted @ [[0.299], [0.587], [0.114]]
        assert np.abs(image - wanted).mean() < 20


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("faces.tar", 0),
        ("faces.tar.gz", 0),
        ("faces.zip", 0),
        ("plain.jpg", 0),
        ("evil.tar", 2),
        ("cut.tar", 2),
        ("no.zip", 2),
        ("notes.txt", 2),
    ],
)
def test_a_file_in_place_of_the_folder(aligned: Context, tmp_path: Path, name: str, status: int) -> None:
    words = [f"--cache={tmp_path}", f"--content={aligned.content / name}", f"--style={aligned.style}"]
    result = CliRunner().invoke(cli, ["align", "--profile=tiny", "--device=cpu", *words])
    assert result.exit_code == status and "Traceback" not in result.output, result.output
    if status:
        assert result.stderr.startswith(f"hypernst: {aligned.content / name}: ") and result.stderr.count("\n") == 1
    else:
        unpacked = {"faces.tar": ["in__a"], "faces.tar.gz": ["a", "z"], "faces.zip": ["in__a"], "plain.jpg": ["plain"]}
        assert reader.keys(tmp_path / "content/images.h5") == unpacked[name]
