"""A disk that is really full, at every point of writing: one line, nothing damaged, and on it goes when there is room.

The disk is a small tmpfs that a child process mounts for itself alone.
"""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import images, profile
from pipeline.caches import reader, volumes, writer
from pipeline.caches.merge import compact
from pipeline.caches.schema import Column, Layout
from pipeline.caches.volume import Volume
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import LineLog, new_array, read_lines, replacing, write_atomic
from pipeline.reports import films
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from pipeline.shards import writer as shards
from pipeline.training import checkpoint
from pipeline.training.board import Board
from pipeline.training.loop import Loop
from pipeline.training.state import State
from pipeline.verification.rows import check_rows
from stages.train import page
from stages.weights_import import importer
from stages.weights_import.identify import Part
from tests.support import small_run
from tests.support.limits import alone

ROOT = Path(__file__).parents[2]
DISK = 16 << 20  # bytes
STEPS = 8  # how full it is at the start, from full to nearly enough
COLUMNS = {"image": Column("bytes"), "code": Column("f4", (64,)), "region": Column("u1", (64, 64))}
LAYOUT = Layout(COLUMNS, 1, {"columns": {name: [c.dtype, *c.shape] for name, c in COLUMNS.items()}})


def row(key: str, size: int = 4000) -> dict:
    rng = np.random.default_rng([*key.encode()])
    image, code = rng.bytes(size), rng.random(64).astype("f4")
    return {"image": image, "code": code, "region": rng.integers(0, 255, (64, 64)).astype("u1")}


def batch(first: int, count: int) -> writer.PendingRows:
    rows = writer.PendingRows.empty()
    for key in (f"k{i:04d}" for i in range(first, first + count)):
        rows.add(key, row(key), bytes(16))
    return rows


def part(folder: Path) -> None:
    writer.write_part(folder / "images.h5", batch(0, 60), Layout(COLUMNS, 1, {"columns": {}}), number=1)


def merge(folder: Path, kept: tuple[int, ...] = ()) -> None:
    path = folder / "images.h5"
    files, entries, heads = [path] * len(kept) + writer.listed(path), {}, {}
    for number, file in enumerate(files):
        with Volume(file) as volume:
            entries |= volume.entries(number)
            heads[number] = volume.head()
    compact(path, files, entries, LAYOUT, kept={number: heads[number] for number in kept})


def parts(folder: Path, first: int = 0) -> None:
    for number in range(3):
        writer.write_part(folder / "images.h5", batch(first + 20 * number, 20), LAYOUT)


def grown(folder: Path) -> None:
    parts(folder)
    merge(folder)
    shutil.rmtree(folder / "images.parts")
    parts(folder, 100)


def grow(folder: Path) -> None:
    """Add the parts as a volume; the plain file becomes one as well."""
    if not volumes.there(folder / "images.h5"):
        merge(folder, (0,))


def stage(folder: Path) -> None:
    """A whole stage: parts, the merged cache, the list of rejects and the digests of the sources."""

    def opened(_: Context) -> Worker:
        def work(items: list[Item]) -> list:
            return [Reject("no " * 3000) if i.key.endswith("3") else {"value": row(i.key)["code"]} for i in items]

        return work

    spec = StageSpec("align", "images", {"value": Column("f4", (64,))}, opened, batch=4)
    run_stage(spec, "content", Context(profile.load("tiny"), folder / "cache", folder / "content"))


def sources(folder: Path) -> None:
    (folder / "content").mkdir()
    for i in range(30):
        (folder / "content" / f"{i:04d}.jpg").write_text(f"{i}")


def shard(folder: Path) -> None:
    samples = [*small_run._samples("content", 12, 1.0, 64)]
    shards.write(folder / "shards", [("content", "train", samples)], 10**5, {})


def log(folder: Path) -> None:
    with LineLog(folder / "log.jsonl") as lines:
        for i in range(2000 - len(read_lines(folder / "log.jsonl"))):
            lines.add({"step": i, "text": "x" * 100})


def board(folder: Path) -> None:
    with Board(folder / "tensorboard", 0) as curves:
        for step in range(40):
            curves.curves({"loss": step}, step)
            curves.picture("grid", np.random.default_rng(step).integers(0, 255, (64, 64, 3), np.uint8), step)


def training(folder: Path) -> None:
    """A training's loop: its log, its curves, its checkpoint, and a page of it."""
    net = torch.nn.Linear(128, 128)
    torch.nn.init.ones_(net.weight)
    torch.nn.init.zeros_(net.bias)
    state = State(folder / "run" / "checkpoint.safetensors", {"net": net}, {})
    state.resume()
    with Loop.of("train", state, 200, save_every=3) as loop:
        for step in loop:
            loop.tell({"loss": step})
    page.compare([folder / "run"], folder / "curves.html")


def imported(folder: Path) -> None:
    importer._write(Part("toy", {"a": torch.arange(60_000.0)}), folder / "weights" / "toy.safetensors", {})


def pictures(folder: Path) -> None:
    """One that is drawn, and files copied from elsewhere, as samples are."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write_atomic(folder / "out" / "x.png", images.encode(pixels))
    with replacing(folder / "samples") as made:
        made.mkdir()
        for i in range(10):
            shutil.copyfile(__file__, made / f"{i}.jpg")


def array(folder: Path) -> None:
    new_array(folder / "cache" / "photos.npy", np.float16, (200, 800), fill=3)


def film(folder: Path) -> None:
    """As the studio takes it away, and as a file."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), np.uint8)
    made = functools.partial(films.encoded, ".webm", [Image.fromarray(rgb) for rgb in noise], images.encode)
    tempfile.tempdir = str(folder)
    write_atomic(folder / "walk.webm", made())


UNPREPARED = (part, shard, log, board, training, imported, pictures, array, film)
POINTS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "merge": (parts, merge),
    "volumes": (grown, grow),
    "stage": (sources, stage),
    "checkpoint": (
        lambda folder: checkpoint.save(folder / "x.safetensors", {"a": torch.zeros(9)}, {}),
        lambda folder: checkpoint.save(folder / "x.safetensors", {"a": torch.arange(60_000.0)}, {}),
    ),
} | {write.__name__: (lambda _: None, write) for write in UNPREPARED}


def content(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, without what depends on the time."""
    found = {}
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file() and "tfevents" not in path.name):
        if path.name not in ("log.jsonl", ".sources.json", ".sources.jsonl", ".lock"):
            told = checkpoint.load(path) if path.name == "checkpoint.safetensors" else None
            data = repr((told[0], told[1]["step"])).encode() if told else path.read_bytes()
            if path.suffix == ".webm":  # each has a random number
                data = b"%d frames" % films.count(path)
            found[str(path.relative_to(folder))] = data
    return found


def is_sound(path: Path) -> bool:
    """Whether a file that is neither the former nor the final one is whole, as of a step or a part before the end."""
    if path.name == "checkpoint.safetensors":
        return checkpoint.meta(path)["step"] < 200
    return path.parent.suffix == ".parts" and not [*check_rows(volume := Volume(path), volume.entries())]


def used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


@contextlib.contextmanager
def room(disk: Path, size: int) -> Iterator[None]:
    """Only `size` bytes are left on the disk."""
    free = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - size)
    try:
        yield
    finally:
        (disk / "filler").unlink()


def try_point(disk: Path, name: str) -> list[str]:
    """Run a point of writing with room, then with less and less too little; what is told."""
    prepare, write = POINTS[name]
    whole = disk / "whole"
    whole.mkdir()
    prepare(whole)
    before = used(whole)
    write(whole)
    needed, expected = used(whole) - before, content(whole)
    told = []
    for step in range(STEPS):
        folder = disk / f"{step}"
        folder.mkdir()
        prepare(folder)
        former = content(folder)
        with room(disk, step * needed // STEPS // 4096 * 4096):
            try:
                write(folder)
            except UserError as error:
                told.append(str(error))
            now = content(folder)
            assert former.keys() - {path for path in former if ".parts/" in path} <= now.keys()
            for path, data in now.items():
                assert data in (former.get(path), expected.get(path)) or is_sound(folder / path), path
        write(folder)
        assert content(folder) == expected
        shutil.rmtree(folder)
    shutil.rmtree(whole)
    return told


def child(disk: str) -> None:
    """`try_point` with each, on a disk of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
    torch.set_num_threads(1)
    volumes.ONE_FILE = 4
    print(json.dumps({name: try_point(Path(disk), name) for name in POINTS}))


def test_a_full_disk_is_one_line_and_damages_nothing(tmp_path: Path) -> None:
    if not alone():
        pytest.skip("a tmpfs cannot be mounted here: neither as root nor in a user namespace")
    command = [*alone(), sys.executable, "-c", f"from {__name__} import child; child({str(tmp_path)!r})"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not any(word in done.stderr for word in ("Traceback", "HDF5", "Exception")), done.stderr[-3000:]
    for name, lines in json.loads(done.stdout).items():
        assert len(lines) >= STEPS // 2, (name, lines)
        assert all("no space left on the device (" in line or "MB are free" in line for line in lines), (name, lines)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.system import test_full_disk as points
folder = Path(sys.argv[1])
points.parts(folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for write in (points.part, points.merge, points.shard, points.imported, points.array, points.board):
    try:
        write(folder)
    except points.UserError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
points.merge(folder)
"""


def test_a_file_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    told = done.stdout.splitlines()
    assert len(told) == 6 and all("larger than a file may be there; raise the limit (`ulimit -f`)" in x for x in told)
    assert not [*tmp_path.rglob("*.tmp")] and len(reader.keys(tmp_path / "images.h5")) == 60
