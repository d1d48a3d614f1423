"""Shards are reproducible to the byte, appear whole or not at all, and hold what the caches hold."""

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import profile
from pipeline.caches import reader as store
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.shards import index, writer
from pipeline.shards.indexed import Samples
from stages.preprocess import shards as stage
from tests.support.caches import fill

COUNT = 90


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("packed")
    tiny = profile.load("tiny")
    tiny = dataclasses.replace(tiny, shards=dataclasses.replace(tiny.shards, max_mb=0.15))
    ctx = Context(tiny, cache=base / "cache", content=base / "content", style=base / "style")
    fill(ctx, "content", COUNT)
    fill(ctx, "style", 8)
    assert stage.run(ctx) == 0
    return ctx


def sums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_same_inputs_same_bytes_and_no_second_packing(packed: Context, capsys: pytest.CaptureFixture) -> None:
    before = sums(packed.shards)
    stage.run(packed)
    assert "content: 90 images = 90 packed + 0 rejected earlier (0 packed now)" in capsys.readouterr().err
    assert stage.plan(packed)[1] == ""
    (packed.shards / "index.json").unlink()
    shutil.copy(next(packed.shards.glob("*.tar")), packed.shards / "content-train-000099.tar")
    assert "no finished shards" in stage.plan(packed)[1]
    stage.run(packed)
    assert sums(packed.shards) == before


def test_index_describes_the_tars(packed: Context) -> None:
    _, listed = index.read_index(packed.shards)
    assert sum(s.samples for s in listed if s.collection == "content") == COUNT
    assert len([s for s in listed if s.collection == "content"]) > 3
    for shard in listed:
        path = packed.shards / shard.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256 and path.stat().st_size == shard.bytes
        with tarfile.open(path) as tar:
            headers = [(m.name, m.offset, m.size, m.mtime, m.mode) for m in tar]
        assert headers == [(*m, 0, 0o644) for i in range(shard.samples) for m in index.members(shard, i)]


def test_samples_hold_what_the_caches_hold(packed: Context) -> None:
    samples = Samples(packed.shards, "content", "test")
    sample = samples[3]
    latents, masks, aladin = (packed.file("content", n) for n in ("latents", "masks", "aladin"))
    key = [sample["key"]]
    assert np.array_equal(sample["latent"], store.read_rows(latents, key, ["latent"])[0]["latent"])
    assert np.array_equal(sample["region"], store.read_rows(masks, key, ["region"])[0]["region"])
    row = store.read_rows(aladin, key, ["code", "image_code", "boxes"])[0]
    assert np.array_equal(sample["codes"], np.concatenate([row["code"], row["image_code"][None]]))
    assert sample["image"].shape == (32, 32, 3) and sample["image"].dtype == np.uint8
    assert sample["meta"]["split"] == "test" and sample["meta"]["boxes"] == row["boxes"].tolist()
    train = Samples(packed.shards, "content", "train").keys()
    assert not set(train) & set(samples.keys()) and len(train) + len(samples) == COUNT


@pytest.mark.parametrize("noisy", [False, True])
def test_images_have_no_traces_that_a_discriminator_could_tell_real_ones_by(noisy: bool) -> None:
    """Colour edges lose half their resolution in a usual JPEG; even noise keeps 45 dB here."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (512, 512, 3), np.uint8) if noisy else np.zeros((512, 512, 3), np.uint8)
    if not noisy:
        large[:, 2::4, 0], large[:, 3::4, 0] = 255, 255
        large[..., 2] = 255 - large[..., 0]
    wanted = cv2.resize(large, (256, 256), interpolation=cv2.INTER_AREA)
    kept = cv2.imdecode(np.frombuffer(stage._jpeg(cv2.imencode(".png", large)[1].tobytes(), 256), np.uint8), 1)
    assert 10 * np.log10(255**2 / np.square(kept.astype(float) - wanted).mean()) > 45


def test_shards_of_the_former_format_are_packed_again_and_told(packed: Context, tmp_path: Path) -> None:
    former = dataclasses.replace(packed, cache=shutil.copytree(packed.cache, tmp_path / "cache"))
    place = former.shards / "index.json"
    entries = json.loads(place.read_text())
    entries["provenance"] |= {"version": 1, "params": entries["provenance"]["params"] | {"jpeg_quality": 95}}
    place.write_text(json.dumps(entries))
    count, cause = stage.plan(former)
    assert count == 98 and "params.jpeg_quality 95 -> 99, version 1 -> 2" in cause
    assert stage.run(former) == 0 and stage.plan(former) == (98, "")


def test_other_caches_of_the_same_images_give_the_same_bytes(packed: Context, tmp_path: Path) -> None:
    other = dataclasses.replace(packed, cache=tmp_path / "cache")
    fill(dataclasses.replace(other, limit=10), "content", COUNT)  # computed in two runs, in another folder
    fill(other, "content", COUNT)
    fill(other, "style", 8)
    stage.run(other)
    assert sums(other.shards) == sums(packed.shards)


def test_killed_while_packing_leaves_no_index_and_the_rerun_the_same_bytes(packed: Context, tmp_path: Path) -> None:
    """The third rename of a file is the end of the process: two tars are there, the third is not."""
    cache = shutil.copytree(packed.cache, tmp_path / "cache")
    shutil.rmtree(cache / "shards")
    code = (
        "import os, pathlib, signal, sys, dataclasses\nfrom pipeline import profile\n"
        "from pipeline.context import Context\nfrom stages.preprocess import shards\n"
        "replace, left = pathlib.Path.replace, 3\n"
        "def killing(self, target):\n    global left\n    left -= 1\n"
        "    return replace(self, target) if left else os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.replace = killing\n"
        "tiny = profile.load('tiny')\n"
        "tiny = dataclasses.replace(tiny, shards=dataclasses.replace(tiny.shards, max_mb=0.15))\n"
        "shards.run(Context(tiny, cache=pathlib.Path(sys.argv[1])))"
    )
    root = Path(stage.__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, str(cache)], cwd=root, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = sorted(p.name for p in (cache / "shards").iterdir())
    assert len([n for n in left if n.endswith(".tar")]) == 2 and "index.json" not in left
    with pytest.raises(UserError, match="no finished shards"):
        index.read_index(cache / "shards")
    again = dataclasses.replace(packed, cache=cache)
    stage.run(again)
    assert sums(again.shards) == sums(packed.shards)


def test_the_split_is_by_key_alone_and_recorded(packed: Context) -> None:
    for fraction in (0.1, 0.25, 0.5):
        splits = [writer.split_of(f"picture-{i}", fraction) for i in range(2000)]
        assert abs(splits.count("test") / 2000 - fraction) < 0.04
    provenance, listed = index.read_index(packed.shards)
    assert provenance["params"]["test_fraction"] == 0.25
    for shard in listed:
        assert shard.name.startswith(f"{shard.collection}-{shard.split}-")
        assert {writer.split_of(key, 0.25) for key in shard.keys} == {shard.split}


@pytest.mark.parametrize("name", ["portable", "paper"])
def test_shards_are_of_a_size_that_streams_well(name: str) -> None:
    if (profile.FOLDER / f"{name}.toml").exists():
        assert 64 <= profile.load(name).shards.max_mb <= 256


def test_no_shard_is_larger_than_asked(packed: Context) -> None:
    assert all(s.bytes <= 150_000 for s in index.read_index(packed.shards)[1])


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    samples = [(f"k{i:03d}", dict.fromkeys(index.MEMBERS, b"%d" % i)) for i in range(300)]
    writer.write(tmp_path, [("content", "train", samples)], 1, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.open(os.devnull, os.O_RDONLY))  # what is below it is in use
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 100, hard))
    try:
        read = Samples(tmp_path, "content")
        assert len(read.shards) == 300
        for i in np.random.default_rng(0).permutation(300):
            key, members = read.raw(int(i))
            assert key == samples[i][0] and bytes(members["jpg"]) == b"%d" % i
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
