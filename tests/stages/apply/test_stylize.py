"""The command stylize on untrained networks at 32 px: recipes repeated to the byte, folders, mixes, wrong uses."""

import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from models.metrics.lpips import LPIPS
from pipeline import images, profile, weights
from pipeline.errors import UserError
from pipeline.reports import sheets
from stages.apply import recipe as recipes
from stages.apply import walk
from stages.cli import main
from tests.stages.apply.test_studio import load, ready

pytestmark = pytest.mark.weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ready(profile.load("tiny"), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> Result:
    common = ("--profile=tiny", "--run=run", "--device=cpu", "--cache=cache")
    return CliRunner().invoke(main.cli, ["stylize", *words, *common], catch_exceptions=False)


def test_a_picture_tells_how_it_was_made_and_is_made_again_to_the_byte(folder: Path) -> None:
    first = call("--content=me.png", "--style=a.png", "--hair=b.png", "--strength=0.5", "-o", "out.png")
    assert first.exit_code == 0 and first.stdout == "out.png\n", first.output
    assert first.stderr.splitlines()[0] == "stylize: me.png: align (0/5)"
    studio = load(profile.load("tiny"), folder)
    by_hand = studio.stylize("me.png", {"hair": "b.png", "face": "a.png", "background": "a.png"}, 0.5)
    assert np.array_equal(images.decode(Path("out.png").read_bytes()), by_hand)

    said = recipes.read(Path("out.png"))
    assert said.portrait["name"] == "me.png" and [s["title"] for s in said.styles.values()] == ["b.png", "a.png"]
    for name in ("a.png", "b.png"):
        Path(name).rename(f"other {name}")  # styles are known by content: from the cache, or from files named
    assert call("--recipe=out.png", "me.png", "-o", "again.png").exit_code == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    Path("r.json").write_text(said.dumps())
    named = ("--style=other a.png", "--style=other b.png", "--content=me.png")
    elsewhere = call("--recipe=r.json", *named, "-o", "third.png")
    assert elsewhere.exit_code == 0 and np.array_equal(images.decode(Path("third.png").read_bytes()), by_hand)

    assert call("--recipe=r.json", "me.png", "-o", "bare.png", "--no-recipe").exit_code == 0
    with pytest.raises(UserError, match="carries no recipe"):
        recipes.read(Path("bare.png"))
    other = json.loads(said.dumps())
    other["weights"]["hypernet"], other["styles"]["a"]["sha256"] = "0" * 64, "1" * 64
    Path("r.json").write_text(json.dumps(other))
    lost = call("--recipe=r.json", "me.png", "-o", "x.png")
    assert lost.exit_code == 2 and "style b.png (sha256 111111111111...) is not there" in lost.stderr
    assert "made with another hypernet than here" in lost.stderr


def test_folders_are_stylised_each_in_each_and_what_is_there_stays(folder: Path) -> None:
    for name, members in {"people": ("me", "c"), "art": ("a", "b")}.items():
        Path(name).mkdir()
        for member in members:
            (Path(name) / f"{member}.jpg").write_bytes(Path(f"{member}.png").read_bytes())
    for name in ("people/notes.jpg", "art/0.jpg"):
        Path(name).write_bytes(b"\xff\xd8\xff no picture")
    for name, kind in (("people", "tar"), ("art", "zip")):
        shutil.make_archive(name, kind, name)
    first = call("people", "--style=art.zip", "-o", "people/out")
    assert first.exit_code == 0 and "4 made, 0 there already, 2 left out" in first.stderr, first.output
    pictures = sorted(Path("people/out").glob("*--*.png"))
    assert [p.name for p in pictures] == ["c--a.png", "c--b.png", "me--a.png", "me--b.png"]
    rejects = [json.loads(line)["reason"] for line in Path("people/out/rejects.jsonl").read_text().splitlines()]
    assert [why.startswith("0.jpg: ") for why in rejects] == [True, False] and all(
        "not a picture" in w for w in rejects
    )
    assert images.decode(Path("people/out/sheet.png").read_bytes()).shape[1] == 2 * (sheets.CELL + sheets.GAP)
    before = {p: p.read_bytes() for p in pictures}
    pictures[0].unlink()
    pictures[1].write_bytes(b"cut")
    again = call("people.tar", "--style=art", "-o", "people/out")
    assert "2 made, 2 there already, 2 left out" in again.stderr
    assert {p: p.read_bytes() for p in pictures} == before
    assert call("me.png", "--style=a.png", "--style=b.png", "--weight=3", "--weight=1", "-o", "mix.png").exit_code == 0
    mixed = load(profile.load("tiny"), folder).stylize("me.png", [("a.png", 3), ("b.png", 1)])
    assert np.array_equal(images.decode(Path("mix.png").read_bytes()), mixed)


def test_a_walk_is_even_and_ends_in_its_styles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = load(profile.load("tiny"), folder)
    frames = studio.interpolate("me.png", ["a.png", "b.png"], 5)
    ends = [studio.stylize("me.png", name, refine=0) for name in ("a.png", "b.png")]
    assert np.array_equal(frames[0], ends[0]) and np.array_equal(frames[-1], ends[1]) and len(frames) == 5
    lpips = LPIPS("alex", weights.tensors("lpips-alex"))
    seen = [images.to_tensor(np.asarray(frame)) for frame in frames]
    steps = [float(lpips(a, b)) for a, b in itertools.pairwise(seen)]
    assert min(steps) > 0 and max(steps) < 2.5 * min(steps)
    own = studio.interpolate("me.png", ["a.png"], 2)
    assert np.array_equal(own[0], studio.stylize("me.png", "a.png", 0, refine=0))

    common = ("--profile=tiny", "--run=run", "--device=cpu", "--cache=cache")
    words = ("interpolate", *common, "--content=me.png", "--frames=3", "--styles", "b.png", "a.png")
    Path("frames").mkdir()
    mine = Path("me.png").read_bytes()
    for place, data in {
        "0007.png": recipes.mark(mine, None),
        "0008.png": mine,
        "notes.png": recipes.mark(mine, None),
    }.items():
        Path("frames", place).write_bytes(data)
    monkeypatch.setattr(walk, "KEYS", 1)
    for name in ("strip.png", "walk.gif", "walk.webm", "frames", "walk.mp4", "me.png/walk.gif"):
        done = CliRunner().invoke(main.cli, [*words, "-o", name], catch_exceptions=False)
        assert done.exit_code == (2 if name in ("walk.mp4", "me.png/walk.gif") else 0), done.output
    strip = images.decode(Path("strip.png").read_bytes())
    assert strip.shape == (32, 96, 3)
    assert np.array_equal(strip[:, :32], ends[1]) and np.array_equal(strip[:, -32:], ends[0])
    assert Path("walk.webm").read_bytes().startswith(b"\x1aE\xdf\xa3") and Path("walk.gif").read_bytes()[:3] == b"GIF"
    kept = ["0000.png", "0001.png", "0002.png", "0008.png", "notes.png"]  # of what was there only our frame has gone
    assert [p.name for p in sorted(Path("frames").iterdir())] == kept
    film = cv2.VideoCapture("walk.webm")
    seen = [film.read() for _ in range(4)]
    assert [there for there, _ in seen] == [True, True, True, False]
    with Image.open("walk.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (3, (32, 32), 0)
    for number, (_, frame) in enumerate(seen[:3]):
        expected = images.decode(Path(f"frames/{number:04}.png").read_bytes())
        assert np.abs(frame[:, :, ::-1].astype(int) - expected).mean() < 20  # VP8 halves the resolution of colours
    for wrong in (1, 2000, True):
        with pytest.raises(UserError, match="expected a number from 2"):
            studio.interpolate("me.png", ["a.png"], wrong)


WRONG = [
    ("--style=a.png -o out.png", "Missing option --content"),
    ("me.png c.png --style=a.png -o out.png", "is one file, for 2 portraits in 1 styles; expected a folder"),
    ("me.png --style=a.png --weight=1 --weight=2 -o o.png", "2 --weight for 1 --style"),
    ("me.png --style=a.png --weight=nan -o o.png", "--weight is nan; expected numbers above 0"),
    ("me.png --style=a.png --face=0 -o o.png", "faces are counted from 1"),
    ("me.png --recipe=r.json --mix=robust -o o.png", "--recipe says strengths, mixes"),
    ("me.png --recipe=r.json --weight=1 -o o.png", "--recipe says strengths, mixes"),
    ("me.png --recipe=none.json -o o.png", "none.json: cannot be read"),
    ("me.png --recipe=me.png -o o.png", "me.png: this picture carries no recipe"),
    ("me.png --recipe=r.json --strength=0.5 -o o.png", "--recipe says strengths"),
    ("me.png --style=a.png --style=none.png -o o.png", "none.png: is not a file"),
    ("me.png --style=a.png --mix=robust -o o.png", "a robust mix takes three --style or more"),
    ("me.png --style=a.png -o out.gif", "out.gif: expected an image's name"),
    ("run --style=a.png -o out", "run: holds no image"),
    ("me.png --style=empty -o out", "and the like; it is empty"),
    ("me.png --style= -o out.png", "Invalid value for '--style': the name is empty"),
    ("me.png --style=a.png --output=", "the name is empty"),
    ("me.png --style=a.png -o a.png/out.png", "'a.png/out.png': Not a directory"),
    ("me.png --style=a.png -o me.png/out", "'me.png/out': Not a directory"),
]


def test_wrong_use_is_told_in_one_line(folder: Path) -> None:
    Path("empty").mkdir()
    for words, told in WRONG:
        done = call(*words.split())
        assert done.exit_code == 2 and told in done.stderr, (words, done.output)
        assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())
    Path("linked.png").symlink_to("b.png")
    before = [Path(name).read_bytes() for name in ("me.png", "a.png", "b.png")]
    for own in ("me.png", "./a.png", "linked.png"):
        done = call("--content=me.png", "--style=a.png", "--hair=b.png", "-o", own)
        assert done.exit_code == 2 and "is a file that is read, and would be lost" in done.stderr
    walk = ["interpolate", "--content=me.png", "--style=a.png", "--style=b.png", "--profile=tiny", "-o", "a.png"]
    assert "would be lost" in CliRunner().invoke(main.cli, walk).stderr
    assert [Path(name).read_bytes() for name in ("me.png", "a.png", "b.png")] == before
