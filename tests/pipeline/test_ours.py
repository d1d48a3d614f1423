"""What is ours in a cache folder, by name and mark: all that is made by the stages, and nothing else."""

from pathlib import Path

import pytest

from pipeline import ours, profile
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.files import move_aside
from stages.preprocess import chain, samples, shards
from stages.tools import clean
from tests.support import caches


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Caches, shards, samples and what killed runs leave, all made by the stages."""
    ctx = Context(profile.load("tiny"), tmp_path / "cache", tmp_path / "c", tmp_path / "s")
    for collection in COLLECTIONS:
        caches.fill(ctx, collection, 3)
    shards.run(ctx)
    portrait = ctx.cache / ours.STUDIO / ours.PORTRAITS / f"{'0' * 32}-{'1' * 8}" / "images.h5"
    portrait.parent.mkdir(parents=True)
    portrait.write_bytes((ctx.cache / "content/images.h5").read_bytes())
    (ctx.cache / ours.STUDIO / ours.SESSION).write_text('{"session": "of a studio that was killed"}')
    (ctx.cache / ours.STUDIO / ours.LOCK).write_bytes(b"")
    (ctx.cache / "content/masks.parts").mkdir()
    (ctx.cache / "content/masks.parts/.000001.h5.77.tmp").write_bytes(b"half")
    (ctx.cache / "style/.images.h5.77.tmp").write_bytes(b"half")
    (ctx.cache / "shards/.content-train-000000.tar.77.tmp").write_bytes(b"half")
    for name in ("content/face-00.jpg", "style/klimt.jpg", ".samples.77.tmp/content/face-01.jpg"):
        (ctx.cache / "samples" / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.cache / "samples" / name).write_bytes(b"picture")
    listed = '{"recipe": {}, "files": ["content/face-00.jpg", "style/klimt.jpg", "../../victim.txt", "/victim.txt"]}'
    (ctx.cache / "samples" / samples.DONE).write_text(listed)
    return ctx.cache


FOREIGN = (
    "photo.jpg", "content/my-embeddings.h5", "content/images.h5.txt", "content/photos/a.jpg",
    "style/masks.parts/notes.txt",
    "shards/other.tar", "shards/content-train-1.tar", "samples/content/me.jpg", "samples/mine.png", "runs/a/log.jsonl",
    ".hidden", "content/.draft.tmp", "quality/results.csv", "quality/content/mine.h5", "style/000001.h5",
)  # fmt: skip


def written(folder: Path, names: tuple[str, ...], data: bytes = b"mine") -> dict[Path, bytes]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {folder / name: data for name in names}


def test_every_stage_writes_only_what_is_listed(cache: Path) -> None:
    files = {path for path in cache.rglob("*") if path.is_file()}
    assert set(ours.files(cache)) == files
    assert {path for path in cache.rglob("*") if path.is_dir()} == set(ours.folders(cache))
    ctx = Context(profile.load("portable"))
    of_directions = {"scores", "edits"}
    outputs = {s.output for name in chain.CACHED for s in chain.steps(name, "style", ctx)} | of_directions
    assert outputs == set(ours.CACHES)
    assert ours.COLLECTIONS == COLLECTIONS


def test_clean_removes_all_that_is_ours(cache: Path, capsys: pytest.CaptureFixture) -> None:
    (cache / "README.md").write_text("page")
    move_aside(cache / "content/latents.h5")
    assert clean.run(cache) == 0
    assert [path.name for path in cache.iterdir()] == ["README.md"]
    assert "removed" in (told := capsys.readouterr().err) and "left" not in told
    assert clean.run(cache) == 0 and clean.run(cache / "nowhere") == 0
    assert "no such folder" in capsys.readouterr().err and not (cache / "nowhere").exists()


def test_clean_leaves_what_is_not_ours_and_says_so(cache: Path, capsys: pytest.CaptureFixture) -> None:
    (cache.parent / "victim.txt").write_text("mine")
    mine = written(cache, FOREIGN)
    assert clean.run(cache) == 0
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == mine
    told = capsys.readouterr().err
    assert "left, as it is not what the stages made: .hidden, content/.draft.tmp" in told and "and 10 more" in told
    assert (cache.parent / "victim.txt").read_text() == "mine"


def test_names_of_ours_without_our_mark_stay(tmp_path: Path) -> None:
    names = (
        "content/images.h5",
        "style/masks.parts/000001.h5",
        "shards/index.json",
        "samples/samples.json",
        "quality/.lock",
        "studio/session.json",
        "shards/content-train-000000.tar",
        "content/rejects.jsonl",
        "style/.sources.json",
        "style/.sources.jsonl",
    )
    mine = written(tmp_path, names)
    mine |= written(tmp_path, ("content/latents.h5",), ours.HDF5 + b"another program's")
    assert clean.run(tmp_path) == 0
    assert all(path.read_bytes() == data for path, data in mine.items())
    mine |= written(tmp_path, (".lock",))
    with pytest.raises(UserError, match=r"\.lock: not a lock of this program"):
        clean.run(tmp_path)
    assert all(path.read_bytes() == data for path, data in mine.items())


def test_clean_does_not_follow_links(cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (cache / "content").rename(elsewhere)
    (cache / "content").symlink_to(elsewhere)
    held = sorted(elsewhere.iterdir())
    (cache / "style/rejects.jsonl").symlink_to(elsewhere / "images.h5")
    assert clean.run(cache) == 0
    assert sorted(elsewhere.iterdir()) == held and (cache / "style/rejects.jsonl").is_symlink()


def test_what_is_moved_aside_never_replaces_another(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "x.h5").write_bytes(b"damaged")
        move_aside(tmp_path / "x.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5.bad", "x.h5.bad2", "x.h5.bad3"]
