"""Shards elsewhere: the same samples in the same order as from a folder, whatever the network does meanwhile."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec  # noqa: F401
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.shards import store, writer
from pipeline.shards.indexed import Loader, Samples
from tests.pipeline.shards.test_readers import sample
from tests.support import servers
from tests.support.servers import Faulty

COUNT = 40
EVERY = 9  # requests between two that fail
STALL = 0.3
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*multi-threaded.*fork")
KINDS = ("http", "http without parts", "s3")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalls are noticed sooner, and nothing of this machine's settings counts."""
    monkeypatch.setattr(store, "STALL", STALL)
    monkeypatch.setattr(store, "FIRST_PATIENCE", 1.0)
    servers.settle(monkeypatch)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "shards"
    folder.mkdir()
    writer.write(folder, [("content", "train", map(sample, range(COUNT)))], 90_000, {})
    return folder


@pytest.fixture(params=KINDS)
def elsewhere(request: pytest.FixtureRequest, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple]:
    """The URL of the shards in each kind of store, and the server in front of it, which fails now and then."""
    app = servers.s3() if request.param == "s3" else servers.files(packed.parent, parts=request.param == "http")
    faulty = Faulty(app, EVERY if request.param != "http without parts" else 2, STALL + 0.3)
    with servers.served(faulty) as address:
        if request.param == "s3":
            servers.upload(address, packed)
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield ("s3://ours/shards" if request.param == "s3" else f"{address}/shards"), faulty


def test_every_sample_is_that_of_the_folder_in_its_order_and_after_a_resume(elsewhere: tuple, packed: Path) -> None:
    url, faulty = elsewhere
    local, remote = Samples(packed, "content"), Samples(url, "content")
    assert remote.keys() == local.keys() and remote.provenance == local.provenance
    wanted = list(itertools.islice(Loader(local, 4, 7), 12))
    for workers, start in ((0, 0), (2, 5)):
        loader = Loader(remote, 4, 7, workers=workers)
        loader.restore({**loader.state(), "step": start})
        for got, want in zip(itertools.islice(loader, 12 - start), wanted[start:], strict=True):
            assert got["key"] == want["key"] and got["json"] == want["json"]
            assert all(np.array_equal(got[n], want[n]) for n in ("image", "region", "latent", "codes"))
    assert faulty.failed > 3, "and answers did fail"
    number, members = local.raw(COUNT - 1)
    assert remote.raw(COUNT - 1) == (number, members)


def test_what_stays_wrong_is_told_in_one_line_without_credentials(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    monkeypatch.setattr(store, "FIRST_PATIENCE", 0.3)

    def told(url: str) -> str:
        with pytest.raises(UserError) as error:
            Samples(url, "content")[0]
        assert "secret" not in str(error.value) and "\n" not in str(error.value)
        assert error.value.__cause__ is None and error.value.__context__ is None, "a traceback shows no URL either"
        return str(error.value)

    with servers.served(servers.files(packed.parent, password="secret")) as address:
        place = address.removeprefix("http://")
        assert Samples(f"http://me:secret@{place}/shards", "content")[0]["key"] == "k000"
        assert "status 401" in told(f"http://me:secret2@{place}/shards?sig=secret")
        assert f"{place}/nothing/index.json: cannot be read (not found)" in told(f"http://me:secret@{place}/nothing")
        assert "no samples of content-test" in told_test(f"http://me:secret@{place}/shards?sig=secret")
    gone = told(f"http://me:secret@{place}/shards?sig=secret")
    assert "tried for" in gone and "check the address, the credentials and the network" in gone
    with servers.served(Faulty(servers.files(packed.parent), 1, 0.0)) as address:
        assert "-000000.tar: cannot be read" in told(f"{address}/shards")
    with servers.served(servers.s3()) as address:
        servers.upload(address, packed)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert "s3://ours/other/index.json: cannot be read (not found)" in told("s3://ours/other")


def told_test(url: str) -> str:
    with pytest.raises(UserError) as error:
        Samples(url, "content", "test")
    assert "secret" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("url", "package"), [("https://x/shards", "aiohttp"), ("s3://x/shards", "s3fs")])
def test_a_missing_package_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("https", "s3"):  # imported before
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"cannot be opened .*pip install 'hypernst\[remote\]'") as error:
        Samples(url, "content")
    assert error.value.status == 2


def test_another_file_under_the_same_name_is_refused(packed: Path, tmp_path: Path) -> None:
    index = (packed / "index.json").read_bytes()
    (tmp_path / "index.json").write_bytes(index)
    with servers.served(servers.files(tmp_path)) as address:
        samples = Samples(address, "content")
        (tmp_path / samples.shards[0].name).write_bytes(bytes(samples.shards[0].bytes))
        with pytest.raises(UserError, match=r"offset 0: holds b'', but index.json says 'k000\.jpg'"):
            samples[0]
