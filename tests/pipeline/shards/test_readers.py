"""Both readers yield each sample once per epoch in a reproducible order, resume exactly and refuse damaged shards."""

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
from hypothesis import given
from hypothesis import strategies as st

from pipeline import images
from pipeline.errors import UserError
from pipeline.shards import batches as stream
from pipeline.shards import writer
from pipeline.shards.batches import Batches
from pipeline.shards.index import read_index
from pipeline.shards.indexed import Loader, Samples
from pipeline.shards.sample import decode, fields
from pipeline.shards.streaming import Stream, StreamLoader, listed

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


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def indexed(folder: Path, **how: Any) -> Batches:
    return Loader(Samples(folder, "content"), 4, 7, **how)


def streamed(folder: Path, **how: Any) -> Batches:
    return StreamLoader(str(folder), "content", "train", 4, 7, buffer=16, **how)


def keys(batches: Iterator[dict[str, Any]]) -> list[list[str]]:
    return [batch["key"] for batch in batches]


@pytest.mark.parametrize(
    "make, ranks, workers",
    [
        *((indexed, ranks, workers) for ranks in (1, 2, 3) for workers in (0, 1, 2, 4)),
        *((streamed, ranks, workers) for ranks in (1, 3) for workers in (0, 2)),
    ],
)
def test_an_epoch_and_its_resume(packed: Path, make: Callable[..., Batches], ranks: int, workers: int) -> None:
    loaders = [make(packed, rank=rank, ranks=ranks, workers=workers) for rank in range(ranks)]
    runs = [keys(itertools.islice(loader, loader.steps + 3)) for loader in loaders]
    each = loaders[0].steps
    assert {loader.steps for loader in loaders} == {each} and {len(run) for run in runs} == {each + 3}
    seen = list(itertools.chain.from_iterable(itertools.chain.from_iterable(run[:each] for run in runs)))
    assert len(seen) == COUNT and len(set(seen)) == COUNT, "every sample once"
    assert all(1 <= len(batch) <= 4 for run in runs for batch in run)
    assert [key for batch in runs[0][each:] for key in batch] != [key for batch in runs[0][:3] for key in batch]
    state = json.loads(json.dumps({**loaders[-1].state(), "step": CUT}))
    resumed = make(packed, rank=ranks - 1, ranks=ranks, workers=workers)
    resumed.restore(state)
    assert keys(resumed.epoch()) == runs[-1][CUT:each], "stopped after some batches and resumed: the rest"
    assert resumed.step == each
    if make is indexed:
        assert runs[-1] == keys(itertools.islice(indexed(packed, rank=ranks - 1, ranks=ranks), each + 3)), (
            "the number of workers does not matter"
        )


def test_a_stream_resumes_at_any_step(packed: Path) -> None:
    whole = keys(itertools.islice(streamed(packed, workers=3), 30))
    for step in (7, 25):
        loader = streamed(packed, workers=3)
        loader.restore({**loader.state(), "step": step})
        assert keys(itertools.islice(loader, 30 - step)) == whole[step:]


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


def test_the_seed_decides_the_order(packed: Path) -> None:
    samples = Samples(packed, "content")
    one, two, other = (keys(Loader(samples, 4, seed).epoch()) for seed in (7, 7, 8))
    assert one == two != other


def test_a_batch_is_tensors(packed: Path) -> None:
    for make in (indexed, streamed):
        batch = next(iter(make(packed)))
        n = len(batch["key"])
        assert batch["image"].shape == (n, 32, 32, 3) and batch["image"].dtype == batch["region"].dtype == torch.uint8
        assert batch["codes"].shape == (n, 4, 256) and batch["latent"].dtype == torch.float32
        assert [json.loads(text)["key"] for text in batch["json"]] == batch["key"]


def test_both_readers_give_the_same_samples(packed: Path) -> None:
    samples = Samples(packed, "content")
    whole = {s["key"]: s for s in map(samples.__getitem__, range(len(samples)))}
    for readers in (1, 2, 20):  # 20: more than there are shards
        source = Stream(str(packed), listed(str(packed), "content"), readers=readers, buffer=8)
        read = [dict(s) for reader in range(readers) for s in source.samples(3, reader)]
        assert sorted(s["key"] for s in read) == sorted(whole)
        for s in read:
            assert all(np.array_equal(s[n], whole[s["key"]][n]) for n in ("image", "region", "latent", "codes"))
            assert json.loads(s["json"]) == whole[s["key"]]["meta"]


def test_a_stream_reads_through_a_command(packed: Path) -> None:
    half = Stream(f"pipe:cat {packed}", listed(f"pipe:cat {packed}", "content"), readers=2)
    assert sum(1 for reader in range(2) for _ in half.raw(0, reader)) == COUNT


def test_wrong_numbers_fail_early(packed: Path, tmp_path: Path) -> None:
    for make in (indexed, streamed):
        with pytest.raises(UserError, match="83 samples for 99 ranks"):
            make(packed, ranks=99)
        loader = make(packed)
        with pytest.raises(UserError, match="cannot resume"):
            loader.restore({**loader.state(), "seed": 1})
    with pytest.raises(UserError, match="no samples of other-train; there are content-train"):
        Samples(packed, "other")
    with pytest.raises(UserError, match="no samples of other-train; there are content-train"):
        listed(str(packed), "other")
    with pytest.raises(UserError, match=r"index\.json: cannot be read"):
        listed(str(tmp_path), "content")


def read_all(folder: Path) -> None:
    """Read everything with both readers; both must refuse it."""
    faults = []
    for read in (lambda: list(indexed(folder).epoch()), lambda: list(streamed(folder).epoch())):
        with pytest.raises(UserError) as fault:
            read()
        faults.append(str(fault.value))
    raise UserError(" | ".join(faults))


def test_a_cut_tar_is_refused(copied: Path) -> None:
    shard = read_index(copied)[1][0]
    path = copied / shard.name
    path.write_bytes(path.read_bytes()[: shard.offsets[-1]] + bytes(1024))  # cut between two samples, with a proper end
    with pytest.raises(UserError, match=rf"{shard.name}: \d+ bytes, but index.json says .*'its end'.*it was cut"):
        read_all(copied)


def test_a_tar_cut_while_it_is_read_is_refused(copied: Path) -> None:
    samples = Samples(copied, "content")
    assert samples[1]
    os.truncate(copied / samples.shards[0].name, samples.shards[0].offsets[1] + 700)
    with pytest.raises(UserError, match="ends within sample 'k001'"):
        samples.raw(1)
    with pytest.raises(UserError, match=r"cannot be read|its end"):
        list(streamed(copied).epoch())


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
        (swap_members, r"holds b?'k000\.latent\.npy'.*holds 'k001\.latent\.npy'"),
        (swap_contents, r"sample 'k00\d': damaged \(its json is that of 'k00\d'\)"),
        (rename, r"holds b?'\.\./\.\./k000\.jpg'.*holds '\.\./\.\./k000\.jpg'"),
        (insert, r"holds b?'\.\./evil'.*holds '\.\./evil' of 0 bytes"),
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
