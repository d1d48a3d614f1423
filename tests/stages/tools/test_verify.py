"""Damage is found and named, and repair costs no more than what was damaged."""

import dataclasses
import os
import signal
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline import ours, profile
from pipeline.caches import digests, reader
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock, reading
from pipeline.runner.run import run_stage
from stages.portraits.portrait import cached
from stages.preprocess import chain, shards
from stages.tools import explain, verify, verify_checks
from tests.support.caches import SPECS, fill, fill_in_place_of_networks, in_place_of_networks, packed

COUNT = 20


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return packed(tmp_path, COUNT, 3)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))


def chunk(path: Path, name: str) -> int:
    """Where in the file the first chunk of a dataset lies."""
    with h5py.File(path) as f:
        return f[name].id.get_chunk_info(0).byte_offset


def snapshot(ctx: Context) -> dict[str, object]:
    """What every file under the cache holds: a cache's rows and rejects, the bytes of others."""
    held: dict[str, object] = {}
    for path in sorted(ctx.cache.rglob("*")):
        if path.suffix == ".h5":
            with reader.Cache(path) as cache:
                rows = cache.rows(cache.keys(), list(cache.columns))
                held[str(path)] = (
                    cache.provenance,
                    cache.entries(),
                    [{name: np.asarray(value).tobytes() for name, value in row.items()} for row in rows],
                )
        elif path.name not in (".lock", ".sources.json", ".verified.json") and ".bad" not in path.suffix:
            held[str(path)] = path.read_bytes() if path.is_file() else "folder"
    return held


@pytest.mark.parametrize("packing", [{}, {"compression": "gzip"}, {"compression": "gzip", "compression_opts": 1}])
def test_a_packed_chunk_is_copied_only_with_its_checksum(tmp_path: Path, packing: dict) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as f:
        for size in (1, 3, 255, 4097, 65536):
            data = f.create_dataset(str(size), (1, size), "u1", chunks=(1, size), fletcher32=True, **packing)
            data[:] = np.random.default_rng(size).integers(0, 256, (1, size))
            packed = bytearray(data.id.read_direct_chunk((0, 0))[1])
            assert digests.checks(bytes(packed))
            for place in (0, len(packed) // 2, len(packed) - 1):
                packed[place] ^= 1
                assert not digests.checks(bytes(packed))
                packed[place] ^= 1


def test_sound_caches_pass(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    assert verify.run(ctx) == 0
    assert "0 problems; all checksums hold" in capsys.readouterr().err


@pytest.mark.parametrize("name, column", [("latents", "latent"), ("masks", "region"), ("aladin", "code")])
def test_a_flipped_bit_is_found_and_repaired(
    ctx: Context, name: str, column: str, capsys: pytest.CaptureFixture
) -> None:
    path = ctx.file("content", name)
    flip(path, chunk(path, column) + 5)
    assert verify.run(ctx) == 1
    told = capsys.readouterr().err
    assert f"{path}: dataset {column} is damaged at: content0000" in told
    verify.remove(ctx, verify.check(ctx))
    assert len(reader.keys(path)) < COUNT
    fill(ctx, "content", COUNT)
    assert len(reader.keys(path)) == COUNT and verify.run(ctx) == 0


def test_a_flipped_bit_in_a_picture_is_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "images")
    picture = reader.read_rows(path, ["content0007"], ["image"])[0]["image"]
    flip(path, path.read_bytes().index(picture) + 100)
    with pytest.raises(UserError, match="key 'content0007' does not have its digest"):
        reader.read_rows(path, ["content0007"], ["image"])
    verify.remove(ctx, verify.check(ctx))
    assert "digest differs) is damaged at: content0007\n" in capsys.readouterr().err
    fill(ctx, "content", COUNT)
    assert "images content: 20 inputs = 20 cached + 0 rejected (1 computed now)" in capsys.readouterr().err
    assert reader.read_rows(path, ["content0007"], ["image"])[0]["image"] == picture
    assert verify.run(ctx) == 0


def test_a_truncated_cache_is_removed(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("style", "images")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="verify --repair"):
        reader.keys(path)
    (ctx.cache / "style/.images.h5.1.tmp").touch()
    verify.remove(ctx, verify.check(ctx))
    assert "cannot be opened" in capsys.readouterr().err
    assert not path.exists() and not list(ctx.cache.rglob("*.tmp"))
    assert len(reader.keys(ctx.file("style", "masks"))) == 3, "they hold again once images are back"
    fill(ctx, "style", 3)
    assert "masks style: 3 inputs = 3 cached + 0 rejected (0 computed now)" in capsys.readouterr().err
    assert verify.run(ctx) == 0


def test_caches_that_differ_are_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "images")
    verify._drop(path, {"content0003"})
    assert verify.run(ctx) == 1
    assert "masks.h5: was made from other rows than images.h5 holds, at: content0003\n" in capsys.readouterr().err


class TestRepair:
    """verify --repair with the stages at hand computes just what is bad."""

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Context:
        """Caches as the profile's stages would describe them, whose workers are replaced for repair as well."""
        ctx = Context(profile.load("portable"), cache=tmp_path / "k", content=tmp_path / "c", style=tmp_path / "s")
        fill_in_place_of_networks(ctx, "content", COUNT)
        fill_in_place_of_networks(ctx, "style", 3)
        shards.run(ctx)
        whole = chain.steps
        monkeypatch.setattr(chain, "steps", lambda *words: tuple(map(in_place_of_networks, whole(*words))))
        capsys.readouterr()
        return ctx

    def repaired(self, ctx: Context, before: dict, capsys: pytest.CaptureFixture) -> str:
        assert verify.run(ctx, repair=True) == 0
        assert snapshot(ctx) == before
        return capsys.readouterr().err

    @pytest.mark.weights
    def test_only_the_rows_that_are_bad(self, made: Context, capsys: pytest.CaptureFixture) -> None:
        before = snapshot(made)
        assert self.repaired(made, before, capsys).endswith("all checksums hold\n")
        path = made.file("content", "latents")  # a chunk is one row
        flip(path, chunk(path, "latent") + 5)
        verify._drop(made.file("content", "masks"), {"content00007", "content00008"})
        told = self.repaired(made, before, capsys)
        assert f"{path}: dataset latent is damaged at: content00000\n" in told
        assert "masks.h5: lacks keys that images and parses have: content00007, content00008\n" in told
        assert "latents content: 20 inputs = 20 cached + 0 rejected (1 computed now)" in told
        assert "masks content: 20 inputs = 20 cached + 0 rejected (2 computed now)" in told
        assert "aladin-codes content: 20 inputs = 20 cached + 0 rejected (0 computed now)" in told
        assert "style" not in told and "align" not in told

    @pytest.mark.weights
    def test_files_parts_and_shards(self, made: Context, capsys: pytest.CaptureFixture) -> None:
        before = snapshot(made)
        os.truncate(made.file("style", "images"), 3000)
        made.file("content", "aladin").unlink()
        tar = min(made.shards.glob("content-*.tar"))
        flip(tar, 700)
        (made.cache / "content/.masks.h5.77.tmp").touch()
        (made.cache / "content/masks.parts").mkdir()
        told = self.repaired(made, before, capsys)
        assert "align style: 3 inputs = 3 cached + 0 rejected (3 computed now)" in told
        assert "align content" not in told and "latents content" not in told and f"{tar}: its sha256" in told
        assert "aladin-codes content: 20 inputs = 20 cached + 0 rejected (20 computed now)" in told

    @pytest.mark.weights
    def test_the_list_of_rejects(self, made: Context, capsys: pytest.CaptureFixture) -> None:
        (made.content / "twin.jpg").write_bytes((made.content / "content00000.jpg").read_bytes())
        (align,) = chain.steps("align", "content", made)
        run_stage(align, "content", made)
        path = made.cache / "content/rejects.jsonl"
        before, listed = snapshot(made), path.read_text()
        assert '"twin"' in listed and verify.run(made) == 0
        for lost in ("", listed[:20], listed.replace("twin", "other"), listed.replace('"twin"', '[{"twin": NaN}]')):
            path.write_text(lost)
            told = self.repaired(made, before, capsys)
            assert "content/images.h5: rejects.jsonl does not list what it rejected: twin\n" in told
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(UserError, match=r"rejects\.jsonl: is not a plain file; nothing was changed: remove it"):
            run_stage(align, "content", made)

    @pytest.mark.weights
    def test_a_pipe_among_our_files_keeps_nobody_waiting(self, made: Context, capsys: pytest.CaptureFixture) -> None:
        before = snapshot(made)
        signal.alarm(60)  # ends a test that waits
        for name in ("shards/index.json", ".verified.json", "content/.sources.json", "samples/samples.json"):
            path = made.cache / name
            path.unlink(missing_ok=True)
            path.parent.mkdir(exist_ok=True)
            os.mkfifo(path)
        told = self.repaired(made, before | {str(path): "folder", str(path.parent): "folder"}, capsys)
        assert "index.json: is not a plain file" in told and ours.samples(path.parent) == (None, [])
        signal.alarm(0)

    @pytest.mark.weights
    @pytest.mark.parametrize("name", ["key", "digest", "inputs"])
    def test_what_tells_the_rows_apart(self, made: Context, name: str, capsys: pytest.CaptureFixture) -> None:
        before = snapshot(made)
        path = made.file("content", "masks")
        flip(path, chunk(path, name) + 50)
        assert f"{path}, dataset {name}: damaged" in self.repaired(made, before, capsys)

    @pytest.mark.weights
    def test_never_with_another_profile(self, made: Context, capsys: pytest.CaptureFixture) -> None:
        path = made.file("content", "latents")
        verify._drop(path, {"content00002"})
        other = dataclasses.replace(made.profile, aladin=dataclasses.replace(made.profile.aladin, patches=5))
        assert verify.run(dataclasses.replace(made, profile=other), repair=True) == 1
        told = capsys.readouterr().err
        assert "content: aladin.h5 was made with another recipe (columns.boxes" in told and "computed now" not in told


@pytest.mark.parametrize("name", ["images", "aladin"])
def test_any_flipped_bit_is_found_or_harmless(ctx: Context, name: str) -> None:
    path = ctx.file("style", name)
    whole, rows = path.read_bytes(), snapshot(ctx)
    random = np.random.default_rng(0)
    places = {*random.integers(len(whole), size=60), *random.integers(4000, size=60)}  # its own structures come first
    for place in map(int, places):
        flip(path, place)
        found = list(verify_checks.check_collection(path.parent))
        assert found or snapshot(ctx) == rows, place
        path.write_bytes(whole)


def test_a_damaged_shard_is_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    tar = min(ctx.shards.glob("content-train-*.tar"))
    whole = tar.read_bytes()
    flip(tar, 700)
    assert verify.run(ctx) == 1
    assert f"{tar}: its sha256" in capsys.readouterr().err
    verify.remove(ctx, verify.check(ctx))
    shards.run(ctx)
    assert tar.read_bytes() == whole and verify.run(ctx) == 0


def test_a_row_that_was_edited_with_its_digest_is_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    path = ctx.file("content", "aladin")
    with h5py.File(path, "r+") as f:
        f["code"][0] += 1
        row = {name: f[name][0] for name in SPECS["aladin"]}
        f["digest"][0] = np.frombuffer(digests.row_digest(row), np.uint8)
    assert verify.run(ctx) == 1
    assert f"{path}: its rows do not have the digest that the file was written with" in capsys.readouterr().err


def test_shards_of_other_rows_are_found(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    verify._drop(ctx.file("content", "masks"), {"content0001"})
    verify.run(ctx)
    index = ctx.shards / "index.json"
    assert f"{index}: was made from other rows than {ctx.file('content', 'masks')} holds" in capsys.readouterr().err
    shards.run(ctx)
    verify.run(ctx)
    assert "other rows than" not in capsys.readouterr().err


def test_verify_reads_beside_others_and_not_beside_a_stage(ctx: Context) -> None:
    with reading(ctx.cache):
        assert verify.run(ctx) == 0
    told: list[str] = []

    def beside() -> None:
        for command in (verify.run, lambda ctx: explain.explain(None, ctx), lambda ctx: list(cached(ctx, "content"))):
            try:
                told.append(str(command(ctx)))
            except UserError as error:
                told.append(str(error))

    with lock(ctx.cache, "align"):
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    assert len(told) == 3 and all("in use by stage align (pid " in text for text in told), told


def test_limits_and_rejects_reach_the_shards(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    verify._drop(ctx.file("content", "masks"), {"content0001"})
    assert "parents.content/masks" in shards.plan(ctx)[1]
    shards.run(ctx)
    assert "content: 20 images = 19 packed + 1 rejected earlier (19 packed now)" in capsys.readouterr().err
    shards.run(dataclasses.replace(ctx, limit=2))
    assert "content: 3 images = 2 packed" in capsys.readouterr().err
