"""Damaged archives, pictures, networks, caches and indexes by the hundred: each is told, none stops the program.

A fixed seed and a few seconds here; `-m slow` goes on much longer. A failure names the seed of what failed.
"""

import gzip
import io
import json
import random
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import SCHEMA
from pipeline.caches import reader
from pipeline.errors import UserError
from pipeline.shards import index
from pipeline.sources import archives, decode
from pipeline.weights import torchscript
from stages.tools import inspect, verify_checks
from tests.pipeline.caches.test_hostile_caches import cache
from tests.support.torchscripts import scripted

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pickletools")
ROUNDS = [pytest.param(150), pytest.param(20_000, marks=pytest.mark.slow)]
SECONDS = 10.0  # for one input


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with some bytes changed, taken out, put twice or set to what numbers have at their ends."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(out) or 1), rng.choice((1, 1, 2, 4, 8, 12, 512))
        how = rng.randrange(6)
        if how == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 1:
            out[at : at + length] = rng.randbytes(length)
        elif how == 2:
            out[at : at + length] = rng.choice((b"\0", b"\xff", b"\x80", b"7", b" ")) * length
        elif how == 3:
            del out[at : at + length]
        elif how == 4:
            out[at:at] = out[at : at + length * 4]
        elif rng.random() < 0.2:
            del out[at:]
    return bytes(out)


def mended(data: bytes, rng: random.Random) -> bytes:
    """A tar with headers whose checksums fit again, so that what they say is looked at."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if rng.random() < 0.9 and any(out[at : at + 512]):
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % (sum(out[at : at + 512]) % 8**6)
    return bytes(out)


def tar(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as box:
        for name in ("a.jpg", "x" * 140 + "/b.jpg", "ünï/c.png"):
            if form == tarfile.USTAR_FORMAT:
                name = name.replace("x" * 140, "x" * 90)
            info = tarfile.TarInfo(name)
            info.size = 700
            box.addfile(info, io.BytesIO(bytes(700)))
    return out.getvalue()


def packed(kind: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as box:
        for name in ("a.jpg", "ünï/b.png", "c/"):
            box.writestr(name, b"" if name.endswith("/") else bytes(range(256)) * 3)
    return out.getvalue()


def encoded(kind: str, **options: object) -> bytes:
    ramp = np.linspace(0, 255, 80 * 72 * 3).reshape(72, 80, 3).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, kind, **options)
    return out.getvalue()


def run(seeds: Iterable[int], once: Callable[[random.Random], None]) -> None:
    """Do it with each seed; whatever gets out is told with its seed, and so is what takes long."""
    for seed in seeds:
        start = time.process_time()
        try:
            once(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert time.process_time() - start < SECONDS, f"seed {seed}"


@pytest.mark.parametrize("rounds", ROUNDS)
def test_archives(rounds: int, tmp_path: Path) -> None:
    tars = [tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    zipped = [packed(kind) for kind in (0, 8, 12, 14)]

    def once(rng: random.Random) -> None:
        kind = rng.choice(("tar", "tar.gz", "zip", "zip"))
        data = mutated(rng.choice(zipped if kind == "zip" else tars), rng)
        if kind != "zip":
            data = mended(data, rng)
        if kind == "tar.gz":
            data = gzip.compress(data, 1)
            data = mutated(data, rng) if rng.random() < 0.3 else data
        path = tmp_path / f"a.{kind}"
        path.write_bytes(data)
        reader = archives.Reader()
        try:
            for member in archives.listing(str(path)):
                try:
                    if not member.problem and member.size <= archives.MAX_BYTES:
                        assert len(reader.read(str(path), member.at, member.size)) == member.size
                except OSError as error:
                    assert error.strerror
        except archives.BadArchiveError as error:
            assert str(error) and "\n" not in str(error)
        reader.close()

    run((4534, *range(6 * rounds)), once)  # the first one is told to seek nowhere


@pytest.mark.parametrize("rounds", ROUNDS)
def test_pictures(rounds: int) -> None:
    kinds = [
        encoded("JPEG"),
        encoded("JPEG", progressive=True),
        encoded("PNG"),
        encoded("WEBP"),
        encoded("GIF"),
        encoded("BMP"),
        encoded("TIFF", compression="tiff_deflate"),
        encoded("TIFF"),
        encoded("PPM"),
        encoded("AVIF", speed=10),
        encoded("HEIF"),
    ]

    def once(rng: random.Random) -> None:
        data = mutated(rng.choice(kinds), rng)
        try:
            rgb = decode.read(data)
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and decode.reduction(data) >= 1
        except decode.UnusableError as error:
            assert str(error)

    run(range(10 * rounds), once)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_indexes(rounds: int) -> None:
    entry = {
        "name": "content-train-000000.tar",
        "collection": "content",
        "split": "train",
        "samples": 2,
        "bytes": 11264,
        "sha256": "0" * 64,
        "keys": ["a", "b"],
        "offsets": [0, 5120],
        "sizes": [[1] * 5] * 2,
    }
    good = {"schema": SCHEMA, "provenance": {"parents": {}}, "members": list(index.MEMBERS), "shards": [entry]}
    text = json.dumps(good).encode()
    assert len(index.parse_index(text, "x")[1]) == 1
    odd = [2**63, -(2**63) - 1, 10**400, 1.5, -1, None, True, [], {}, "", "..", "\x1b]0;x\x07", [[[[]]]], {"a": 1}]

    def replaced(value: object, rng: random.Random) -> object:
        """The value with one of what lies in it replaced by something odd."""
        if isinstance(value, dict) and value and rng.random() < 0.9:
            key = rng.choice(sorted(value))
            return value | {key: replaced(value[key], rng)}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], replaced(value[at], rng), *value[at + 1 :]]
        return rng.choice(odd)

    def once(rng: random.Random) -> None:
        data = mutated(text, rng) if rng.random() < 0.4 else json.dumps(replaced(good, rng)).encode()
        try:
            for shard in index.parse_index(data, "x")[1]:
                assert [[*index.members(shard, i)] for i in range(shard.samples)]
                assert shard.name + shard.collection + shard.split + shard.sha256
        except UserError as fault:
            assert str(fault).startswith("x") and "\n" not in str(fault) and "\x1b" not in str(fault)

    run(range(6 * rounds), once)
    for data in (b"[" * 200_000, b'{"a":' * 200_000, b"\xff", b"null", b"1e999", b'"' + b"a" * 100):
        with pytest.raises(UserError, match="not an index of shards"):
            index.parse_index(data, "x")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_networks(rounds: int, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        good = scripted(tmp_path / "net.pt", {"a.b": torch.ones(3, 4), "c": torch.zeros(())}, sizes=[1, 2]).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as box:
        members = {name: box.read(name) for name in box.namelist()}

    def once(rng: random.Random) -> None:
        data = mutated(good, rng)
        if rng.random() < 0.7:  # a damaged member in a sound archive
            out = io.BytesIO()
            chosen = rng.choice([*members, "net/data.pkl"])
            with zipfile.ZipFile(out, "w") as box:
                for name, content in members.items():
                    box.writestr(name, mutated(content, rng) if name == chosen else content)
            data = out.getvalue()
        try:
            assert torchscript.read(data).tensors
        except UserError as fault:
            assert "\n" not in str(fault)

    run(range(2 * rounds), once)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_caches(rounds: int, tmp_path: Path) -> None:
    path = cache(tmp_path / "images.h5")
    good = path.read_bytes()

    def entries() -> None:
        with reader.Cache(path) as opened:
            opened.entries()

    looks: list[Callable[[], object]] = [
        lambda: inspect.run(path, full=True),
        entries,
        lambda: [*verify_checks.check_collection(tmp_path)],
    ]

    def once(rng: random.Random) -> None:
        start = rng.choice((0, 0, rng.randrange(0, len(good) - 3000, 1000)))  # most of the structures come first
        end = start + rng.choice((600, 3000))
        path.unlink()  # HDF5 knows a file by its inode: this one is new to it
        path.write_bytes(good[:start] + mutated(good[start:end], rng) + good[end:])
        for look in looks:
            try:
                look()
            except UserError as fault:
                assert "\n" not in str(fault)

    run((4437, *range(2 * rounds)), once)  # a key of the first one is no text
