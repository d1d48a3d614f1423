"""Shards are reproducible to the byte; readers give every sample once, resume exactly and refuse damaged tars."""

import dataclasses
import hashlib
import itertools
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import profile, shards, store
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.stream import Loader, Samples, stream
from stages import shards as stage
from tests.caches import fill

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


@pytest.fixture
def copied(packed: Context, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.shards, tmp_path / "shards"))


def sums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_same_inputs_same_bytes_and_no_second_packing(packed: Context, capsys: pytest.CaptureFixture) -> None:
    before = sums(packed.shards)
    stage.run(packed)
    assert "content: 90 images = 90 packed + 0 rejected earlier (0 packed now)" in capsys.readouterr().err
    assert "nothing to compute" in stage.explain(packed)
    (packed.shards / "index.json").unlink()
    (packed.shards / "content-train-000099.tar").write_bytes(b"stray")
    assert "no finished shards" in stage.explain(packed)
    stage.run(packed)
    assert sums(packed.shards) == before


def test_index_describes_the_tars(packed: Context) -> None:
    _, listed = shards.read_index(packed.shards)
    assert sum(s.samples for s in listed if s.collection == "content") == COUNT
    assert len([s for s in listed if s.collection == "content"]) > 3
    for shard in listed:
        path = packed.shards / shard.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256 and path.stat().st_size == shard.bytes
        with tarfile.open(path) as tar:
            found = [(m.name, m.offset, m.size, m.mtime, m.mode) for m in tar]
        assert found == [(*m, 0, 0o644) for i in range(shard.samples) for m in shards.members(shard, i)]


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


@pytest.mark.parametrize("ranks, workers", [(1, 0), (2, 1), (3, 2), (1, 4)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_every_sample_once_an_epoch_and_exact_resume(packed: Context, ranks: int, workers: int) -> None:
    samples = Samples(packed.shards, "content")
    whole = []
    for rank in range(ranks):
        loader = Loader(samples, 4, 7, rank=rank, ranks=ranks, workers=workers)
        first = [b["key"] for b in loader.epoch()]
        assert len(first) == loader.steps
        plain = [b["key"] for b in itertools.islice(Loader(samples, 4, 7, rank=rank, ranks=ranks), loader.steps + 3)]
        assert first == plain[:loader.steps]
        resumed = Loader(samples, 4, 7, rank=rank, ranks=ranks, workers=workers)
        resumed.restore(json.loads(json.dumps({**loader.state(), "step": 5})))
        assert [b["key"] for b in itertools.islice(resumed, loader.steps - 2)] == plain[5:]
        whole += itertools.chain.from_iterable(first)
    assert sorted(whole) == sorted(samples.keys())


def test_a_batch_is_tensors_and_epochs_differ(packed: Context) -> None:
    loader = Loader(Samples(packed.shards, "content"), 100, 0)
    one, two = itertools.islice(loader, 2)
    assert one["key"] != two["key"] and sorted(one["key"]) == sorted(two["key"])
    n = len(one["key"])
    assert one["image"].shape == (n, 32, 32, 3) and one["image"].dtype == torch.uint8
    assert one["codes"].shape == (n, 4, 256) and one["latent"].dtype == torch.float32


def test_streaming_gives_the_same_samples(packed: Context) -> None:
    samples = Samples(packed.shards, "content")
    indexed = {s["key"]: s for s in map(samples.__getitem__, range(len(samples)))}
    streamed = [s for r in range(2) for s in stream(str(packed.shards), "content", reader=r, readers=2, buffer=8)]
    assert sorted(s["key"] for s in streamed) == sorted(indexed)
    for s in streamed:
        for name in ("image", "region", "latent", "codes"):
            assert np.array_equal(s[name], indexed[s["key"]][name])
        assert s["meta"] == indexed[s["key"]]["meta"]


def test_wrong_numbers_fail_early(packed: Context) -> None:
    with pytest.raises(Fault, match="shards of style-train for 9 readers"):
        next(stream(str(packed.shards), "style", readers=9))
    with pytest.raises(Fault, match="samples for 99 ranks"):
        Loader(Samples(packed.shards, "content"), 4, 0, ranks=99)
    with pytest.raises(Fault, match="no samples of other-train"):
        Samples(packed.shards, "other")
    loader = Loader(Samples(packed.shards, "content"), 4, 0)
    with pytest.raises(Fault, match="cannot resume"):
        loader.restore({**loader.state(), "seed": 1})


def test_a_cut_tar_is_refused(copied: Path) -> None:
    shard = shards.read_index(copied)[1][0]
    path = copied / shard.name
    path.write_bytes(path.read_bytes()[:shard.offsets[-1]] + bytes(1024))
    with pytest.raises(Fault, match=rf"{shard.name}: \d+ bytes, but index.json says"):
        Samples(copied, shard.collection, shard.split)
    with pytest.raises(Fault, match=f"{shard.samples - 1} samples, but index.json says {shard.samples}"):
        list(stream(str(copied), shard.collection, shard.split))


def test_a_swapped_member_is_refused(copied: Path) -> None:
    shard = shards.read_index(copied)[1][0]
    path = copied / shard.name
    path.write_bytes(path.read_bytes().replace(shard.keys[0].encode(), b"x" * len(shard.keys[0])))
    samples = Samples(copied, shard.collection, shard.split)
    with pytest.raises(Fault, match=r"but index\.json says"):
        samples.raw(samples.keys().index(shard.keys[0]))
    with pytest.raises(Fault, match=r"index\.json says|bad checksum"):
        list(stream(str(copied), shard.collection, shard.split))


def test_a_shard_outside_the_folder_is_refused(copied: Path) -> None:
    index = json.loads((copied / "index.json").read_text())
    index["shards"][0]["name"] = "../evil.tar"
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(Fault, match=r"shard name '../evil.tar'"):
        Samples(copied, "content")
