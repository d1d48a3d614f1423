"""Making samples removes only the pictures that samples.json lists; those of the user are refused, never removed."""

from pathlib import Path

import pytest

from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from stages.preprocess import samples


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run whose samples are drawn at once."""
    picture = tmp_path / "astronaut"
    picture.write_bytes(b"astronaut")
    monkeypatch.setattr(samples.weights, "path", lambda _: picture)
    monkeypatch.setattr(samples, "_recipe", lambda ctx: {"seed": ctx.profile.seed})
    monkeypatch.setattr(
        samples, "generate_faces", lambda ctx, folder: (folder / f"face-{ctx.limit}.jpg").write_bytes(b"f")
    )
    monkeypatch.setattr(samples, "choose_paintings", lambda folder: (folder / "klimt.jpg").write_bytes(b"painting"))
    return Context(profile.load("tiny"), cache=tmp_path / "cache", limit=1)


def again(ctx: Context, name: int) -> int:
    """Samples of another recipe."""
    samples._recipe = lambda _: {"seed": name}  # type: ignore[assignment]
    return samples.run(Context(ctx.profile, cache=ctx.cache, limit=name))


def there(ctx: Context) -> list[str]:
    folder = ctx.cache / "samples"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_listed_pictures_make_room_for_others(ctx: Context) -> None:
    assert samples.run(ctx) == 0
    (ctx.cache / "samples/notes.txt").write_text("mine")
    (ctx.cache / "samples/content/.DS_Store").touch()
    assert again(ctx, 2) == 0
    assert there(ctx) == ["content/.DS_Store", "content/astronaut.png", "content/face-2.jpg", "notes.txt",
                          "samples.json", "style/klimt.jpg"]  # fmt: skip
    assert samples.is_current(ctx)


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("name", ["content/me.jpg", "style/art.tar", "content/holiday/me.jpg"])
def test_pictures_of_the_user_are_refused_and_stay(ctx: Context, made: bool, name: str) -> None:
    if made:
        samples.run(ctx)
    (ctx.cache / "samples" / name).parent.mkdir(parents=True, exist_ok=True)
    (ctx.cache / "samples" / name).write_bytes(b"mine")
    before = there(ctx)
    with pytest.raises(UserError, match=r"1 files are none of the samples .* CONTENT=") as caught:
        again(ctx, 2)
    assert there(ctx) == before and "/".join(Path(name).parts[:2]) in str(caught.value)


@pytest.mark.parametrize(
    "listing", ["", "[", '{"recipe": 1, "files": ["content/../../../victim.jpg", "/victim.jpg", ".."]}']
)
def test_a_list_that_tells_nothing_or_leads_elsewhere(ctx: Context, listing: str) -> None:
    (ctx.cache / "samples/content").mkdir(parents=True)
    (ctx.cache / "samples/samples.json").write_text(listing)
    victim = ctx.cache.parent / "victim.jpg"
    victim.write_bytes(b"mine")
    assert samples.run(ctx) == 0 and victim.exists()


def test_a_folder_that_is_a_link_is_refused(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/face-1.jpg").write_bytes(b"mine")
    samples.run(ctx)
    for path in (ctx.cache / "samples/content").iterdir():
        path.unlink()
    (ctx.cache / "samples/content").rmdir()
    (ctx.cache / "samples/content").symlink_to(tmp_path / "photos")
    with pytest.raises(UserError, match="none of the samples"):
        again(ctx, 2)
    assert (tmp_path / "photos/face-1.jpg").exists()


@pytest.mark.parametrize("moment", ["choose_paintings", "write_atomic", "fsync"])
def test_killed_at_any_moment_it_knows_its_own(ctx: Context, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    samples.run(ctx)
    with monkeypatch.context() as patch:
        owner = samples.files if hasattr(samples.files, moment) else samples
        whole, calls = getattr(owner, moment), []

        def killed(*words: object) -> object:
            calls.append(words)
            if moment != "fsync" or len(calls) > 3:
                raise KeyboardInterrupt
            return whole(*words)

        patch.setattr(owner, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            again(ctx, 2)
    assert again(ctx, 3) == 0
    assert there(ctx) == ["content/astronaut.png", "content/face-3.jpg", "samples.json", "style/klimt.jpg"]
