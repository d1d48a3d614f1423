"""Archives with false claims, loops or no end: each is a reject with its reason, and the others are read."""

import bz2
import gc
import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from pipeline import zips
from pipeline.sources import archives
from pipeline.sources.archives import BadArchiveError, Reader, listing
from pipeline.sources.scan import scan
from tests.support.limits import limited

SHARED = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[4] / "shared")) / "inputs" / "hostile"
PEAK = 300  # MB
READ = """
from pathlib import Path
from pipeline.sources import archives
try:
    members, reader = archives.listing(sys.argv[1]), archives.Reader()
    print(len(members), 'members')
    for m in members[:50]:
        try:
            print(m.problem or len(reader.read(sys.argv[1], m.at, m.size)))
        except OSError as error:
            print(error.strerror)
except archives.BadArchiveError as error:
    print(error)
"""


def header(name: bytes, size: int | bytes, kind: bytes = b"0", checksum: bool = True) -> bytes:
    """A tar header; `size` may be the field itself."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"%011o\0" % 0)
    block += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    if checksum:
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A pax record."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)
PICTURE = header(b"a.jpg", 5) + padded(b"hello")


def gzipped(path: Path, *pieces: tuple[bytes, int]) -> Path:
    """A gzip of pieces, each repeated."""
    with gzip.open(path, "wb", 1) as file:
        for piece, times in pieces:
            for _ in range(times):
                file.write(piece)
    return path


def lying(kind: int, size: int, claimed: int) -> bytes:
    """A zip whose one member unpacks to `size` zeros and claims to have `claimed`; its checksum is right."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as box:
        box.writestr("a.jpg", bytes(size))
    data = bytearray(out.getvalue())
    local, listed = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    for at in (local + 14, listed + 16):
        struct.pack_into("<I", data, at, zlib.crc32(bytes(claimed)))
    for at in (local + 22, listed + 24):
        struct.pack_into("<I", data, at, claimed)
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files that claim large sizes, or unpack to them."""
    folder = tmp_path_factory.mktemp("bombs")
    pieces = bytes(1 << 20)
    for name, data in {
        "deflate.zip": lying(zipfile.ZIP_DEFLATED, 400 << 20, 1000),
        "bzip2.zip": lying(zipfile.ZIP_BZIP2, 100 << 20, 1000),
        "lzma.zip": lying(zipfile.ZIP_LZMA, 32 << 20, 1000),
    }.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "honest.zip", "w", zipfile.ZIP_DEFLATED) as box, box.open("a.jpg", "w") as file:
        for _ in range(200):
            file.write(pieces)
    gzipped(folder / "pax.tar.gz", (header(b"x", 700 << 20, b"x"), 1), (pieces, 40), (PICTURE + END, 1))
    gzipped(folder / "global.tar.gz", (header(b"g", 700 << 20, b"g"), 1), (pieces, 40), (PICTURE + END, 1))
    gzipped(folder / "long.tar.gz", (header(b"L", 700 << 20, b"L"), 1), (pieces, 40), (PICTURE + END, 1))
    gzipped(folder / "sparse.tar.gz", (header(b"a.jpg", 5, b"S")[:482] + b"\1" + bytes(29), 1))
    gzipped(folder / "endless.tar.gz", (header(b"a.txt", 3 << 30), 1), (pieces, 100), (END, 1))
    gzipped(folder / "zeros.tar.gz", (header(b"a.jpg", 120 << 20), 1), (pieces, 120), (END, 1))
    (folder / "cut.tar").write_bytes(header(b"L", 2, b"L") + padded(b"a\0"))
    (folder / "names.tar").write_bytes((header(b"L", 2, b"L") + padded(b"a\0")) * 3000 + PICTURE + END)
    (folder / "none.zip").write_bytes(bz2.compress(b"no zip"))
    return folder


PROBLEMS = {
    "deflate.zip": "1000",
    "bzip2.zip": "packed by bzip2, which",
    "lzma.zip": "packed by LZMA, which",
    "honest.zip": "210 MB, more than 134 MB",
    "pax.tar.gz": "names and comments of more than 1 MB",
    "global.tar.gz": "names and comments of more than",
    "long.tar.gz": "names and comments of more than",
    "sparse.tar.gz": "a header is damaged",
    "endless.tar.gz": "unpacks to more than 1.1 GB",
    "zeros.tar.gz": "125829120",
    "cut.tar": "its end is missing",
    "names.tar": "names and comments",
    "none.zip": "not a zip",
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_bombs_stay_within_their_limits(folder: Path, name: str) -> None:
    said, peak = limited(READ, folder / name, seconds=30)
    assert PROBLEMS[name] in said and peak < PEAK, (said, peak)


def test_lists_of_members_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = header(b"a", 0)
    gzipped(tmp_path / "members.tar.gz", (b"".join(header(b"%d" % i, 0) for i in range(1000)), 300), (END, 1))
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    listed = entry * 400_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(listed), 0, 0)
    (tmp_path / "members.zip").write_bytes(listed + end)
    long = header(b"L", 1 << 19, b"L") + b"n" * (1 << 19) + PICTURE
    gzipped(tmp_path / "names.tar.gz", (long, 500), (END, 1))
    for name, message in (
        ("members.tar.gz", "more than 200000 files, or"),
        ("names.tar.gz", "names of more than 32 million letters; pack it as several archives"),
        ("members.zip", "its list of members is longer than 16 MB; split it"),
    ):
        said, peak = limited(READ, tmp_path / name)
        assert message in said and peak < PEAK, (name, said, peak)
    monkeypatch.setattr(archives, "MEMBERS", 3)
    (tmp_path / "four.tar").write_bytes(empty * 4 + END)
    with pytest.raises(BadArchiveError, match="holds more than 3 files"):
        listing(str(tmp_path / "four.tar"))
    monkeypatch.setattr(zips, "MEMBERS", 3)
    with zipfile.ZipFile(tmp_path / "four.zip", "w") as box:
        for name in "abcd":
            box.writestr(name, b"")
    with pytest.raises(BadArchiveError, match="more than 3 members"):
        listing(str(tmp_path / "four.zip"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PICTURE + header(b"b.jpg", b"\xff" * 10 + b"\xfe\0"), "a file of -512 bytes"),  # leads back to its own header
        (header(b"b.jpg", b"\x80" + b"\xff" * 11), "a file of"),
        (header(b"b.jpg", b"-0000001000\0"), "a file of -512 bytes"),
        (header(b"b.jpg", 10**6) + END, "its end is missing"),
        (PICTURE, "its end is missing"),
        (PICTURE[:700], "its end is missing"),
        (header(b"b.jpg", 0, checksum=False) + END, "invalid literal|a header is damaged"),
        (header(b"x", 30, b"x") + padded(b"99999999999999999999 path=a\n") + PICTURE + END, "a size that is none"),
        (header(b"x", 12, b"x") + padded(b"12 size=-99\n") + PICTURE + END, "a size that is none"),
        (header(b"x", 9, b"x") + padded(b"0 path=a\n") + PICTURE + END, "a damaged pax record"),
        (b"", "its end is missing"),
    ],
)
def test_damaged_tars_come_to_an_end(tmp_path: Path, data: bytes, message: str) -> None:
    for name, content in (("a.tar", data), ("a.tar.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadArchiveError, match=rf"damaged or cut archive \(.*({message})"):
            listing(str(tmp_path / name))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_are_listed_as_python_lists_them(tmp_path: Path, form: int) -> None:
    rng = random.Random(form)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for i in range(300):
            depth = 2 if form == tarfile.USTAR_FORMAT else 6
            words = [rng.choice(("a", "ünï", "c c", "x" * 45)) for _ in range(rng.randint(1, depth))]
            info = tarfile.TarInfo("/".join([*words, f"{i}.jpg"]))
            info.type = rng.choice([tarfile.REGTYPE] * 5 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
            info.linkname = "y" * rng.choice((5, 80)) if info.issym() else ""
            info.size = rng.choice((0, 1, 511, 512, 513, 2000)) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(rng.randbytes(info.size)))
    with tarfile.open(path) as tar:
        known = [(info.name, info.offset_data, info.size) for info in tar if not info.isdir()]
        contents = [file.read() for info in tar if info.isreg() and (file := tar.extractfile(info)) is not None]
    listed, reader = listing(str(path)), Reader()
    assert [(m.name, m.at, m.size) for m in listed] == known
    assert [reader.read(str(path), m.at, m.size) for m in listed if not m.problem] == contents


def test_a_pax_record_may_tell_size_and_sparse_files_are_reported(tmp_path: Path) -> None:
    records = record(b"path", "ünï.jpg".encode()) + record(b"size", b"5") + record(b"mtime", b"1.5")
    data = header(b"x", len(records), b"x") + padded(records) + header(b"a.jpg", 0) + padded(b"hello")
    sparse = record(b"GNU.sparse.major", b"1")
    data += header(b"x", len(sparse), b"x") + padded(sparse) + header(b"b.jpg", 512) + padded(b"0\n")
    (tmp_path / "a.tar").write_bytes(data + PICTURE + END)
    first, second, third = listing(str(tmp_path / "a.tar"))
    assert Reader().read(str(tmp_path / "a.tar"), first.at, first.size) == b"hello" and first.name == "ünï.jpg"
    assert second.problem.startswith("a sparse file") and third.name == "a.jpg"


def test_one_bad_archive_is_a_reject_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    for name in PROBLEMS:
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "good.tar").write_bytes(PICTURE + END)
    for error in (MemoryError, RecursionError, IndexError("list index"), OverflowError, ZeroDivisionError):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archives.tars, "walk", lambda *_, error=error: raise_(error))
            problems = {source.path: source.problem for source in scan(tmp_path)}
            assert "damaged or cut archive" in problems["good.tar"]
    problems = {source.path: source.problem for source in scan(tmp_path)}
    assert problems["good.tar/a.jpg"] == "" and all(
        any(path.startswith(name) for path in problems) for name in PROBLEMS
    )


def raise_(error: type[BaseException] | BaseException) -> None:
    raise error


def test_reading_a_member_may_raise_anything(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as box:
        box.writestr("a.jpg", b"hello")
    reader = Reader()
    for error in (MemoryError(), RecursionError("too deep"), zlib.error("bad"), KeyError("x")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zips.Zip, "bounded", lambda *_, error=error: raise_(error))
            with pytest.raises(OSError, match="damaged in the archive"):
                reader.read(str(tmp_path / "a.zip"), 0, 5)
    assert reader.read(str(tmp_path / "a.zip"), 0, 5) == b"hello"
    with pytest.raises(OSError, match=r"damaged in the archive \(5 bytes, expected 6\)"):
        reader.read(str(tmp_path / "a.zip"), 0, 6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the hostile inputs are not on this machine")
@pytest.mark.parametrize(
    "name", ["damaged-lzma.zip", "empty-name.zip", "afuzz-3.tar", "afuzz-4.tar", "loop.tar", "lie-bzip2.zip"]
)
def test_known_hostile_archives(name: str) -> None:
    said, peak = limited(READ, SHARED / name, seconds=20)
    assert peak < PEAK and said
    print(name, peak, said.splitlines()[:4])


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_zip_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_text("text")
    with pytest.raises(FileNotFoundError):
        listing(str(tmp_path / "gone.zip"))
    with pytest.raises(BadArchiveError, match="not a zip file"):
        listing(str(tmp_path / "no.zip"))
    gc.collect()


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_dotted_names_are_pictures_of_their_own_unless_their_sample_has_other_files(tmp_path: Path, pack: str) -> None:
    names = ["tom.jpg", "tom.edited.jpg", "ann.2020.jpg", "7.jpg", "7.region.png", "7.json"]
    path = tmp_path / f"x.{pack}"
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as box:
            for name in names:
                box.writestr(name, name)
    else:
        with tarfile.open(path, "w") as box:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(name)
                box.addfile(info, io.BytesIO(name.encode()))
    problems = {source.path: source.problem for source in scan(path)}
    assert problems == dict.fromkeys(("tom.jpg", "tom.edited.jpg", "ann.2020.jpg", "7.jpg"), "") | {
        "7.region.png": "a further field of the sample whose picture is '7.jpg'"
    }
