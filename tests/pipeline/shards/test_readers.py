"""The reader yields each sample once per epoch in a reproducible order, resumes exactly and refuses damaged shards."""

import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline import images
from pipeline.errors import UserError
from pipeline.shards import batches as stream
from pipeline.shards import store, writer
from pipeline.shards.batches import Batches
from pipeline.shards.index import read_index
from pipeline.shards.indexed import Loader, Samples
from pipeline.shards.sample import decode, fields

COUNT = 83
CUT = 5  # batches before a resume
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def sample(number: int, latent: np.ndarray | None = None) -> tuple[str, writer.Sample]:
    rng = np.random.default_rng(number)
    key = f"k{number:03d}"
    codes = rng.random((4, 256), np.float32)
    return key, {
        "jpg": images.encode(rng.integers(0, 255, (32, 32, 3), np.uint8), ".jpg"),
        "region.png": images.encode(rng.integers(0, 3, (32, 32, 1), np.uint8).repeat(3, 2)[..., :1], ".png"),
        "latent.npy": writer.npy(rng.random((4, 16), np.float32) if latent is None else latent),
        "codes.npy": writer.npy(codes),
        "json": json.dumps({"key": key, "number": number}).encode(),
    }


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    folder.mkdir()
    writer.write(folder, [("content", "train", map(sample, range(COUNT)))], 90_000, {})
    assert len(list(folder.glob("*.tar"))) > 5
    return folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.0)


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def indexed(folder: Path, **how: Any) -> Batches:
    return Loader(Samples(folder, "content"), 4, 7, **how)


def keys(batches: Iterator[dict[str, Any]]) -> list[list[str]]:
    return [batch["key"] for batch in batches]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_an_epoch_and_its_resume(packed: Path, ranks: int, workers: int) -> None:
    loaders = [indexed(packed, rank=rank, ranks=ranks, workers=workers) for rank in range(ranks)]
    runs = [keys(itertools.islice(loader, loader.steps + 3)) for loader in loaders]
    each = loaders[0].steps
    assert {loader.steps for loader in loaders} == {each} and {len(run) for run in runs} == {each + 3}
    seen = list(itertools.chain.from_iterable(itertools.chain.from_iterable(run[:each] for run in runs)))
    assert len(seen) == COUNT and len(set(seen)) == COUNT, "every sample once"
    assert all(1 <= len(batch) <= 4 for run in runs for batch in run)
    assert [key for batch in runs[0][each:] for key in batch] != [key for batch in runs[0][:3] for key in batch]
    state = json.loads(json.dumps({**loaders[-1].state(), "step": CUT}))
    resumed = indexed(packed, rank=ranks - 1, ranks=ranks, workers=workers)
    resumed.restore(state)
    assert keys(resumed.epoch()) == runs[-1][CUT:each], "stopped after some batches and resumed: the rest"
    assert resumed.step == each
    assert runs[-1] == keys(itertools.islice(indexed(packed, rank=ranks - 1, ranks=ranks), each + 3)), (
        "the number of workers does not matter"
    )


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 9))
def test_batches_split_everything_and_none_is_empty(count: int, batch: int, readers: int) -> None:
    if count < readers:
        with pytest.raises(UserError, match=f"{count} samples for {readers} ranks"):
            stream.steps(count, batch, readers, "here")
        return
    pieces = stream.steps(count, batch, readers, "here") * readers
    split = [stream.piece(count, pieces, i) for i in range(pieces)]
    assert [0, *(b for _, b in split)] == [*(a for a, _ in split), count]
    assert all(1 <= b - a <= max(batch, 2) for a, b in split)


@pytest.mark.parametrize("batch", [3, COUNT - 1, 2 * COUNT + 1])
def test_full_batches_go_on_into_the_next_epoch(packed: Path, batch: int) -> None:
    samples = Samples(packed, "content")
    loader = Loader(samples, batch, 7, full=True)
    run = keys(itertools.islice(loader, 2 * COUNT))
    assert {len(found) for found in run} == {batch}
    whole = list(itertools.chain.from_iterable(run))
    epochs = [whole[i : i + COUNT] for i in range(0, 2 * COUNT, COUNT)]
    assert all(sorted(epoch) == sorted(samples.keys()) for epoch in epochs) and epochs[0] != epochs[1]
    resumed = Loader(samples, batch, 7, full=True)
    resumed.restore(json.loads(json.dumps({**loader.state(), "step": 2})))
    assert keys(itertools.islice(resumed, 2)) == run[2:4]


def test_the_seed_decides_the_order(packed: Path) -> None:
    samples = Samples(packed, "content")
    one, two, other = (keys(Loader(samples, 4, seed).epoch()) for seed in (7, 7, 8))
    assert one == two != other


def test_a_batch_is_tensors(packed: Path) -> None:
    batch = next(iter(indexed(packed)))
    n = len(batch["key"])
    assert batch["image"].shape == (n, 32, 32, 3) and batch["image"].dtype == batch["region"].dtype == torch.uint8
    assert batch["codes"].shape == (n, 4, 256) and batch["latent"].dtype == torch.float32
    assert [json.loads(text)["key"] for text in batch["json"]] == batch["key"]


def test_webdataset_reads_our_shards(packed: Path) -> None:
    samples = Samples(packed, "content")
    theirs = webdataset.WebDataset(sorted(map(str, packed.glob("*.tar"))), shardshuffle=False).decode("rgb8")
    found = list(theirs)
    assert [s["__key__"] for s in found] == samples.keys()
    for s, ours in zip(found, map(samples.__getitem__, range(COUNT)), strict=True):
        assert {*s} >= {"jpg", "region.png", "latent.npy", "codes.npy", "json"}
        assert np.array_equal(s["region.png"][..., 0], ours["region"]) and s["json"] == ours["meta"]
        assert np.array_equal(s["latent.npy"], ours["latent"]) and np.array_equal(s["codes.npy"], ours["codes"])
        assert s["jpg"].shape == ours["image"].shape and abs(s["jpg"].astype(int) - ours["image"]).max() <= 2


def test_wrong_numbers_fail_early(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="83 samples for 99 ranks"):
        indexed(packed, ranks=99)
    loader = indexed(packed)
    with pytest.raises(UserError, match="cannot resume"):
        loader.restore({**loader.state(), "seed": 1})
    with pytest.raises(UserError, match="no samples of other-train; there are content-train"):
        Samples(packed, "other")
    with pytest.raises(UserError, match=r"no index\.json"):
        Samples(tmp_path, "content")


def read_all(folder: Path) -> None:
    """Read everything, from the folder and as from a store; both must refuse it."""
    faults = []
    for place in (folder, f"file://{folder}"):
        with pytest.raises(UserError) as fault:
            list(Loader(Samples(place, "content"), 4, 7).epoch())
        faults.append(str(fault.value))
    raise UserError(" | ".join(faults))


def test_a_cut_tar_is_refused(copied: Path) -> None:
    shard = read_index(copied)[1][0]
    path = copied / shard.name
    path.write_bytes(path.read_bytes()[: shard.offsets[-1]] + bytes(1024))  # cut between two samples, with a proper end
    with pytest.raises(
        UserError, match=rf"{shard.name}: \d+ bytes, but index.json says .*{shard.name}: cannot be read"
    ):
        read_all(copied)


def test_a_tar_cut_while_it_is_read_is_refused(copied: Path) -> None:
    samples = Samples(copied, "content")
    assert samples[1]
    os.truncate(copied / samples.shards[0].name, samples.shards[0].offsets[1] + 700)
    with pytest.raises(UserError, match="ends within sample 'k001'"):
        samples.raw(1)
    with pytest.raises(UserError, match=rf"{samples.shards[0].name}: cannot be read \(\d+ bytes instead of \d+ from"):
        Samples(f"file://{copied}", "content").raw(1)


def change(folder: Path, edit: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """Write the first shard again with its members changed by `edit`, padded to its old length."""
    path = folder / read_index(folder)[1][0].name
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    edit(members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    size = path.stat().st_size
    path.write_bytes(out.getvalue()[:size].ljust(size, b"\0"))


def swap_members(members: list[tuple[str, bytes]]) -> None:
    members[2], members[7] = members[7], members[2]  # two samples' latents, of equal size


def swap_contents(members: list[tuple[str, bytes]]) -> None:
    members[4], members[9] = (members[4][0], members[9][1]), (members[9][0], members[4][1])


def rename(members: list[tuple[str, bytes]]) -> None:
    members[0] = ("../../k000.jpg", members[0][1])


def insert(members: list[tuple[str, bytes]]) -> None:
    members.insert(5, ("../evil", b""))


@pytest.mark.parametrize(
    "edit, message",
    [
        (swap_members, r"holds b'k00\d\.latent\.npy', but index.json says 'k00\d\.latent\.npy'"),
        (swap_contents, r"sample 'k00\d': damaged \(its json is that of 'k00\d'\)"),
        (rename, r"holds b'\.\./\.\./k000\.jpg'.*holds b'\.\./\.\./k000\.jpg'"),
        (insert, r"holds b'\.\./evil'.*holds b'\.\./evil'"),
    ],
)
def test_a_changed_tar_is_refused(copied: Path, edit: Callable, message: str) -> None:
    change(copied, edit)
    with pytest.raises(UserError, match=message):
        read_all(copied)


def test_a_json_of_any_form_counts_but_only_the_samples_own() -> None:
    key, members = sample(0)
    text = json.dumps({"note": f'"key": "{key}"', "key": "another"}).encode()
    for data in (text, text.replace(b": ", b":")):
        with pytest.raises(UserError, match="its json is that of 'another'"):
            list(fields({**members, "json": data}, key))
    assert decode({**members, "json": b'{"key":"k000"}'}, key)["meta"] == {"key": key}


def test_a_batch_of_two_sizes_is_refused() -> None:
    two = [
        fields({**sample(0)[1], "json": b'{"key": "%d"}' % i, "latent.npy": writer.npy(latent)}, str(i))
        for i, latent in enumerate((np.zeros((4, 16), "<f4"), np.zeros((1, 16), "<f4")))
    ]
    with pytest.raises(
        UserError, match=r"sample '1': its latent does not fit .*expected float32\[4, 16\], but it is float32\[1, 16\]"
    ):
        stream.collate(two, 2)


def test_a_member_that_does_not_decode_is_refused(tmp_path: Path) -> None:
    key, members = sample(0)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    for name, data in (
        ("jpg", b"not an image"),
        ("latent.npy", pickled.getvalue()),
        ("codes.npy", b"\x93NUMPY"),
        ("json", b"[1]"),
        ("json", b"{"),
    ):
        with pytest.raises(UserError, match=f"sample '{key}': damaged"):
            decode({**members, name: data}, key)


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("name",), "../evil.tar", r"shard name '\.\./evil\.tar'"),
        (("name",), "a';touch b;'.tar", "shard name"),
        (("name",), "content-train-000001.tar", "a shard is listed twice"),
        (("keys", 0), "../k", r"key '\.\./k'"),
        (("keys",), ["k000"], "1 keys"),
        (("offsets", 1), 512, "its offsets"),
        (("sizes", 0, 0), -5, "sizes"),
        (("sizes", 0), [1], "not an index"),
        (("bytes",), 0, "its offsets"),
        (("surplus",), 1, "not an index"),
    ],
)
def test_an_index_that_lies_is_refused(copied: Path, path: tuple, value: Any, message: str) -> None:
    index = json.loads((copied / "index.json").read_text())
    at = index["shards"][0]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=rf"index\.json: .*{message}.*index\.json: .*{message}"):
        read_all(copied)
