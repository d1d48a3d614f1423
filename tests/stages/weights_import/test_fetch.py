"""A published file with an address: fetched within its limits, known by its sha256, imported."""

import dataclasses
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from pipeline import hashing, weights
from pipeline.errors import UserError
from stages.weights_import import importer
from tests.support.torchscripts import farl, scripted
from tests.support.weights_import import kept, own_cache, same


def test_a_file_with_an_address_is_fetched_and_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    served = tmp_path / "served"
    served.mkdir()
    scripted(served / "face_parsing.pt", farl(11))
    (served / "quota.pt").write_text("<html>Quota exceeded</html>")
    (served / "long.pt").write_bytes(bytes(2_000_000))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    row = weights.REGISTRY["farl-lapa"]
    try:
        wrong = {
            "gone.pt": "cannot be fetched",
            "face_parsing.pt": "is another file than was published",
            "quota.pt": "quota is exceeded",
            "long.pt": "sends more than 1 MB",
        }
        for file, sha256 in (
            ("gone.pt", ""),
            ("face_parsing.pt", row.sha256),
            ("quota.pt", ""),
            ("long.pt", "0"),
            ("face_parsing.pt", hashing.sha256(served / "face_parsing.pt")),
        ):
            address = f"http://127.0.0.1:{server.server_port}/{file}"
            there = dataclasses.replace(row, source=address, published=file, sha256=sha256, mb=1)
            monkeypatch.setitem(weights.REGISTRY, "farl-lapa", there)
            if file == "face_parsing.pt" and sha256 != row.sha256:
                place = importer.fetch_file("farl-lapa")
                assert place == weights.path("farl-lapa") and same(load_file(place), farl(11))
                place.unlink()  # it is large
            else:
                with pytest.raises(UserError, match=wrong[file]):
                    importer.fetch_file("farl-lapa")
                assert kept() == set()
    finally:
        server.shutdown()
        server.server_close()


def test_two_networks_of_one_file_share_its_lock_and_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    names = ("stylegan2-ffhq-256-nvidia", "stylegan2-discriminator-ffhq-256-nvidia")
    for name in names:
        monkeypatch.setitem(weights.REGISTRY, name, dataclasses.replace(weights.REGISTRY[name], sha256=""))
    fetched, imported = list[str](), list[Path]()

    def address(url: str, target: Path, limit: int) -> None:
        fetched.append(url)
        assert not target.exists()
        target.write_bytes(b"published")
        threading.Event().wait(0.2)  # time for the other to come between
        assert target.read_bytes() == b"published"

    def import_file(path: Path, name: str) -> SimpleNamespace:
        assert path.read_bytes() == b"published"
        weights.cached(weights.find(name)).write_bytes(b"tensors")
        return SimpleNamespace(place=weights.cached(weights.find(name)))

    monkeypatch.setattr(importer.download, "address", address)
    monkeypatch.setattr(importer, "import_file", import_file)
    threads = [threading.Thread(target=lambda n=name: imported.append(importer.fetch_file(n))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and {*imported} == {weights.cached(weights.find(name)) for name in names}
    assert not [*weights.folder().glob("*.part")]


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, format: str, *args: object) -> None: ...
