"""Cache files of unknown origin: no other file and no unwritten row is read, and bad files are reported."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.caches import reader as store
from pipeline.caches import volumes
from pipeline.caches import writer as parts
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Column, Layout
from pipeline.caches.volume import Volume
from pipeline.caches.writer import PendingRows
from pipeline.errors import UserError
from stages.tools import inspect, verify_checks
from tests.support.limits import limited

SHARED = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[4] / "shared")) / "inputs" / "hostile"
COLUMNS = {"note": Column("text"), "image": Column("bytes"), "code": Column("f4", (4,)), "map": Column("u1", (64, 64))}
LOOK = """
from pathlib import Path
from stages.tools import inspect, verify_checks
from pipeline.errors import UserError
path = Path(sys.argv[1])
try:
    print(inspect.run(path, full=True))
except UserError as fault:
    print(fault)
for problem in verify_checks.check_collection(path.parent):
    print('problem', problem)
"""


def cache(path: Path, change: Callable[[h5py.File], object] | None = None, **provenance: Any) -> Path:
    """Write a sound cache file of two rows and a reject, then `change` it; return its path."""
    batch = PendingRows.empty()
    for key in ("a", "b"):
        row = {"note": "n", "image": b"12", "code": np.zeros(4, np.float32), "map": np.zeros((64, 64), np.uint8)}
        batch.add(key, row, bytes(16))
    batch.rejects.append(("c", "no face", bytes(16)))
    listed = {name: [column.dtype, *column.shape] for name, column in COLUMNS.items()}
    made = {"stage": "x", "params": {}, "weights": {}, "parents": {}, "columns": listed} | provenance
    parts.write_part(path, batch, Layout(COLUMNS, 1, made)).rename(path)
    parts.folder(path).rmdir()
    if change is not None:
        with h5py.File(path, "r+") as file:
            change(file)
    return path


def replaced(name: str, make: Callable[[h5py.File], object]) -> Callable[[h5py.File], None]:
    """A change that removes a dataset and calls `make` to put something in its place."""

    def change(file: h5py.File) -> None:
        del file[name]
        make(file)

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(2, 4), dtype="f4")
    layout[:] = h5py.VirtualSource("secret.h5", "code", shape=(2, 4))
    file.create_virtual_dataset("code", layout)


CHANGES: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external link": (
        replaced("key", lambda f: f.__setitem__("key", h5py.ExternalLink("secret.h5", "/key"))),
        "a link to another file",
    ),
    "external link in a group": (
        replaced("rejects", lambda f: f.__setitem__("rejects", h5py.ExternalLink("secret.h5", "/rejects"))),
        "a link to another file",
    ),
    "soft link": (replaced("note", lambda f: f.__setitem__("note", h5py.SoftLink("/rejects/reason"))), "another place"),
    "virtual": (replaced("code", virtual), "not stored in chunks of this file"),
    "external storage": (
        replaced("code", lambda f: f.create_dataset("code", (2, 4), "f4", external=[("secret.bin", 0, 32)])),
        "not stored in chunks of this file",
    ),
    "one piece": (replaced("code", lambda f: f.create_dataset("code", (2, 4), "f4")), "not stored in chunks"),
    "huge reasons": (
        replaced(
            "rejects/reason",
            lambda f: f.create_dataset("rejects/reason", (150_000_000,), h5py.string_dtype(), chunks=(1024,)),
        ),
        "150000000 rows claimed",
    ),
    "huge keys": (replaced("key", lambda f: f.create_dataset("key", (10**9,), "S88", chunks=(64,))), "rows claimed"),
    "packed keys": (
        replaced(
            "key",
            lambda f: f.create_dataset(
                "key", (10**6,), "S88", data=np.zeros(10**6, "S88"), chunks=(1000,), compression="gzip"
            ),
        ),
        "packed by filters",
    ),
    "another filter": (
        replaced(
            "code",
            lambda f: f.create_dataset("code", (2, 4), "f4", data=np.zeros((2, 4)), chunks=(2, 4), compression="lzf"),
        ),
        "packed by filters",
    ),
    "a large chunk": (
        replaced(
            "map",
            lambda f: f.create_dataset(
                "map",
                (2, 64, 64),
                "u1",
                chunks=(200_000, 64, 64),
                maxshape=(None, 64, 64),
                compression="gzip",
                data=np.zeros((2, 64, 64)),
            ),
        ),
        "more than 16 MB",
    ),
    "a large key": (replaced("key", lambda f: f.create_dataset("key", (2,), "S8000000", chunks=(1,))), "expected rows"),
    "keys that are numbers": (replaced("key", lambda f: f.create_dataset("key", data=[1, 2], chunks=(2,))), "expected"),
    "a group": (replaced("key", lambda f: f.create_group("key")), "not a dataset"),
    "another type": (
        replaced("code", lambda f: f.create_dataset("code", data=np.zeros((2, 5)), chunks=(2, 5))),
        "expected rows of f4[4]",
    ),
    "provenance of numbers": (lambda f: f.attrs.__setitem__("provenance", 3), "expected text"),
    "empty provenance": (lambda f: f.attrs.__setitem__("provenance", h5py.Empty("S1")), "expected text"),
    "a list": (lambda f: f.attrs.__setitem__("provenance", b"[1]"), "names no columns"),
    "no columns": (lambda f: f.attrs.__setitem__("provenance", b"{}"), "names no columns"),
    "odd columns": (lambda f: f.attrs.__setitem__("provenance", b'{"columns": {"a": []}}'), "describes column 'a'"),
    "odd types": (lambda f: f.attrs.__setitem__("provenance", b'{"columns": {"a": ["O", 1e9]}}'), "describes column"),
    "no such type": (
        lambda f: f.attrs.__setitem__("provenance", b'{"columns": {"a": ["zzz"]}}'),
        "no cache of this program",
    ),
    "nested": (lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"[" * 30_000)), "nested too deeply"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_is_not_ours_is_reported_and_not_followed(name: str, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    cache(tmp_path / "secret.h5")
    (tmp_path / "secret.bin").write_bytes(b"secret" * 10)
    (tmp_path / "c").mkdir()
    path = cache(tmp_path / "c" / "images.h5", change)
    with pytest.raises(UserError, match=r"damaged|no cache of this program") as caught:
        inspect.run(path, full=True)
    assert message in str(caught.value)
    problems = [str(problem) for problem in verify_checks.check_collection(path.parent)]
    assert problems and any(message in text for text in problems)


@pytest.mark.parametrize(("name", "message"), [("rejects", "not the digest it should have"), ("rows", "expected text")])
@pytest.mark.parametrize("value", [10**12, np.zeros(5)], ids=["number", "numbers"])
def test_a_digest_that_is_a_number_is_reported(name: str, message: str, value: object, tmp_path: Path) -> None:
    path = cache(tmp_path / "images.h5", lambda f: f.attrs.__setitem__(name, value))
    with pytest.raises(UserError, match=message), Cache(path) as opened:
        opened.rows_digest() and opened.entries()


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    path = cache(tmp_path / "images.h5")
    assert "2 rows, 1 rejects" in inspect.run(path, full=True) and not [*verify_checks.check_collection(tmp_path)]
    with Cache(path) as opened:
        assert opened.rows(["b"], ["note", "image"]) == [{"note": "n", "image": b"12"}]


def test_values_that_all_lie_in_one_place_are_bounded(tmp_path: Path) -> None:
    def alike(file: h5py.File) -> None:
        file["rejects/reason"].resize((4000,))
        file["rejects/reason"][0] = "x" * 1_000_000
        file.flush()

    path = cache(tmp_path / "images.h5", alike)
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:  # every element becomes a copy of the first: one place in the file's heap
        reasons = file["rejects/reason"].id
        chunks = [reasons.get_chunk_info(i) for i in range(reasons.get_num_chunks())]
    first = bytes(data[chunks[0].byte_offset : chunks[0].byte_offset + 16])
    for chunk in chunks:
        data[chunk.byte_offset : chunk.byte_offset + chunk.size] = first * (chunk.size // 16)
    path.write_bytes(data)
    said, peak = limited(LOOK, path)
    assert "damaged" in said and peak < 300, (said[-500:], peak)


def test_a_provenance_without_parents_is_a_problem(tmp_path: Path) -> None:
    cache(tmp_path / "images.h5", parents=[1])
    assert [p.text for p in verify_checks.check_collection(tmp_path)] == ["its provenance names no parents"]


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(UserError, match="not a plain file"):
        store.keys(tmp_path / "pipe.h5")


def listing(path: Path, counts: list[list[int]], digest: bytes = bytes(16)) -> Path:
    """A cache file that lists volumes, which lie in its folder: one sound file of two rows and a reject."""
    cache(path)
    volumes.folder(path).mkdir()
    path.rename(volumes.file(path, 1))
    with Volume(volumes.file(path, 1)) as volume, h5py.File(path, "w") as file:
        file.attrs["provenance"] = volume.h5.attrs["provenance"]
        file.create_dataset("volumes/counts", data=np.array(counts, "i8"), chunks=(1, 3))
        digests = [list(digest or volume.identity())] * len(counts)
        file.create_dataset("volumes/digest", data=np.array(digests, "u1"), chunks=(1, 16))
    return path


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 2, 1], [1, 2, 1]], "makes no sense"),
        ([[1, -2, 1]], "makes no sense"),
        ([[1, 10**9, 1]], "not the one that images.h5 lists"),
        ([[7, 2, 1]], "missing, but images.h5 lists it"),
    ],
)
def test_a_list_of_volumes_that_makes_no_sense(tmp_path: Path, counts: list[list[int]], message: str) -> None:
    path = listing(tmp_path / "images.h5", counts, b"")
    with pytest.raises(UserError, match=message):
        store.keys(path)
    assert any(message in str(problem) for problem in verify_checks.check_collection(tmp_path))


def test_a_volume_holds_its_rows_itself(tmp_path: Path) -> None:
    path = listing(tmp_path / "images.h5", [[1, 2, 1]], b"")
    assert store.keys(path) == ["a", "b"]
    volumes.file(path, 1).write_bytes(path.read_bytes())  # a list inside a list
    with pytest.raises(UserError, match=r"000001\.h5: not the one"):
        store.keys(path)
    with pytest.raises(UserError, match="not the one"):
        store.keys(listing(tmp_path / "latents.h5", [[1, 2, 1]]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the hostile inputs are not on this machine")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("external-link.h5", "a link to another file"),
        ("huge-reasons.h5", "not stored in chunks"),
        ("prov-list.h5", "names no columns"),
        ("prov-no-columns.h5", "names no columns"),
    ],
)
def test_known_hostile_caches(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "images.h5").write_bytes((SHARED / name).read_bytes())
    said, peak = limited(LOOK, tmp_path / "images.h5")
    assert message in said.splitlines()[0] and "problem" in said and peak < 300, (said, peak)
    assert "\x1b" not in said
