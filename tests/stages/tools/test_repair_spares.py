"""verify --repair loses nothing: not what could not be opened just now, not what is not ours, not even the damaged."""

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline import profile
from pipeline.caches import hdf5
from pipeline.caches import reader as store
from pipeline.caches.failures import DamagedError, ForeignError
from pipeline.context import Context
from pipeline.errors import UserError
from stages.preprocess import chain, shards
from stages.tools import verify, verify_checks
from tests.support.caches import fill

ERRNOS = {
    errno.EACCES: "may not be read by this user",
    errno.EPERM: "may not be read by this user",
    errno.EIO: "the disk or network failed",
    errno.ESTALE: "stale file handle",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "this machine may not open any more files",
    errno.ENOMEM: "not enough memory",
    errno.ETIMEDOUT: "did not answer in time",
    errno.EREMOTEIO: "cannot be read just now (Remote I/O error)",
}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    ctx = Context(profile.load("tiny"), cache=tmp_path / "cache", content=tmp_path / "c", style=tmp_path / "s")
    fill(ctx, "content", 4)
    fill(ctx, "style", 3)
    shards.run(ctx)
    return ctx


def held(ctx: Context) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(ctx.cache)): (p.stat().st_ino, p.read_bytes())
        for p in ctx.cache.rglob("*")
        if p.is_file() and p.name not in (".lock", ".verified.json")
    }


def refusing(monkeypatch: pytest.MonkeyPatch, path: Path, number: int, when: str) -> None:
    """The system refuses `path` with an errno: its opening, or any reading from it, as h5py tells that."""
    whole, read = h5py.File, hdf5.dataset

    class File(whole):  # type: ignore[misc, valid-type]
        def __init__(self, name: Any, *words: Any, **options: Any) -> None:
            if Path(name) == path and when == "open":
                raise OSError(number, f"Unable to open file ({os.strerror(number)}, errno = {number})")
            super().__init__(name, *words, **options)

    def dataset(h5: h5py.File, name: str, column: Any) -> Any:
        if Path(h5.filename) == path and when == name:
            raise OSError(f"Can't read data (file read failed: errno = {number}, error message = '...')")
        return read(h5, name, column)

    monkeypatch.setattr(h5py, "File", File)
    monkeypatch.setattr(hdf5, "dataset", dataset)


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("when", ["open", "key", "latent", "digest"])
def test_what_the_system_refuses_is_not_damaged(
    ctx: Context, number: int, when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path, before = ctx.file("content", "latents"), held(ctx)
    refusing(monkeypatch, path, number, when)
    assert verify.run(ctx) == 1
    told = capsys.readouterr().err
    assert f"{path}: " in told and ERRNOS[number] in told and "damaged (" not in told
    with pytest.raises(UserError, match=r"nothing was repaired or removed") as caught:
        verify.run(ctx, repair=True)
    assert ERRNOS[number] in str(caught.value) and caught.value.status == 1
    assert held(ctx) == before


def test_too_many_files_open_for_true(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path, taken = ctx.file("content", "latents"), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 4, hard))  # noqa: PTH208
    try:
        with pytest.raises(OSError):
            while True:
                taken.append(open(__file__))  # noqa: SIM115
        with pytest.raises(UserError, match="ulimit -n") as caught:
            store.Cache(path)
    finally:
        for file in taken:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_shard_that_cannot_be_read_stays(ctx: Context, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tar, before = ctx.shards / "content-train-000000.tar", held(ctx)

    def sha256(path: Path) -> str:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(verify_checks.hashing, "sha256", sha256)
    with pytest.raises(UserError, match=tar.name):
        verify.run(ctx, repair=True)
    assert held(ctx) == before


def test_files_of_others_are_neither_judged_nor_touched(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    foreign = {}
    for name in ("content/my-embeddings.h5", "content/mine.parts/000001.h5", "content/images.parts/x.h5"):
        foreign[ctx.cache / name] = b"not even HDF5"
    foreign |= {ctx.shards / "mine.tar": b"mine", ctx.cache / "content/.mine.tmp": b"", ctx.cache / ".x.1.tmp": b"x"}
    for path, data in foreign.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    before = held(ctx)
    assert verify.run(ctx) == 0 and verify.run(ctx, repair=True) == 0
    told = capsys.readouterr().err
    assert "content: 3 files that no stage writes are not looked at: images.parts/x.h5, mine.parts/000001.h5" in told
    assert held(ctx) == before


def test_a_whole_hdf5_file_of_others_under_our_name_stays(ctx: Context) -> None:
    path = ctx.file("style", "parses")
    with h5py.File(path, "w") as f:
        f["mine"] = [1, 2, 3]
    before = held(ctx)
    with pytest.raises(ForeignError, match="no cache of this program"):
        store.Cache(path)
    with pytest.raises(UserError, match="no cache of this program"):
        verify.run(ctx, repair=True)
    assert held(ctx) == before


def test_the_damaged_is_moved_aside(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, tar = ctx.file("content", "latents"), min(ctx.shards.glob("*.tar"))
    os.truncate(cache, 3000)
    os.truncate(tar, 2000)
    lost = cache.read_bytes(), tar.read_bytes()
    monkeypatch.setattr(chain, "rebuild", lambda *_: None)
    verify.run(ctx, repair=True)
    assert not cache.exists() and not tar.exists()
    assert (cache.with_name("latents.h5.bad").read_bytes(), tar.with_name(tar.name + ".bad").read_bytes()) == lost


def test_a_folder_that_may_not_be_read_is_not_empty(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.listdir

    def listdir(path: Path) -> list[str]:
        if path == ctx.cache / "style":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert verify.run(ctx) == 1
    with pytest.raises(UserError, match=r"style: may not be read by this user"):
        verify.run(ctx, repair=True)


def test_packing_moves_an_index_and_shards_of_others_aside(ctx: Context) -> None:
    (ctx.shards / "index.json").write_text('{"mine": 1}')
    names = ("mine.tar", "style-test-000042.tar", next(ctx.shards.glob("content-*.tar")).name)
    for name in names:
        (ctx.shards / name).write_bytes(b"mine")
    shards.run(ctx)
    assert [(ctx.shards / name).read_bytes() for name in (*names[:2], f"{names[2]}.bad")] == [b"mine"] * 3
    assert (ctx.shards / "index.json.bad").read_text() == '{"mine": 1}'
    assert (ctx.shards / "mine.tar").read_bytes() == b"mine" and verify.run(ctx) == 0
