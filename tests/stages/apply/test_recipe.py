"""Recipes: what goes in comes out, in a file and inside a PNG; each wrong field is named in one line."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.regions import REGIONS
from pipeline import images
from pipeline.errors import UserError
from stages.apply import recipe as recipes
from stages.apply.recipe import Recipe, Region

SHA = "0123456789abcdef" * 4
MINE: dict[str, Any] = {
    "hypernst": 1,
    "profile": "portable",
    "weights": {"hypernet": SHA},
    "portrait": {"name": "me.jpg", "sha256": SHA},
    "styles": {"a": {"key": "klimt-1", "sha256": SHA, "title": "Ein Bild"}, "b": {"sha256": SHA}},
    "regions": {
        "hair": {"mix": {"a": 1.0}, "t": 0.64},
        "face": {"mix": {"a": 0.6, "b": 0.4}, "t": 0.36},
        "background": {"mix": {}, "t": 0},
    },
    "edits": {"age": 0.0, "smile": -1.5, "pose": 0.0},
    "size": 1024,
}
names = st.text(st.characters(exclude_characters="/\\", exclude_categories=["Cs"]), min_size=1, max_size=40)


@st.composite
def made(draw: st.DrawFn) -> Recipe:
    letters = "abcdefgh"[: draw(st.integers(1, 8))]
    mixes = []
    for _ in REGIONS:
        chosen = draw(st.lists(st.sampled_from(letters), unique=True))
        raw = [draw(st.floats(0.01, 1)) for _ in chosen]
        mix = {letter: value / sum(raw) for letter, value in zip(chosen, raw, strict=True)}
        mixes.append(Region(mix, draw(st.floats(0, 1))))
    portrait = {"name": draw(names), "sha256": SHA} | draw(st.sampled_from([{}, {"face": 2}, {"no_face": "keep"}]))
    styles = {letter: {"key": "k", "sha256": SHA, "title": draw(names)} for letter in letters}
    regions = dict(zip(REGIONS, mixes, strict=True))
    return Recipe(draw(names), {"hypernet": SHA}, portrait, styles, regions, draw(st.integers(0, 20)))


@given(made())
@settings(max_examples=30, deadline=None)
def test_a_recipe_comes_back_as_it_was(recipe: Recipe) -> None:
    assert recipes.loads(recipe.dumps()) == recipe


def test_it_travels_in_a_png_and_changes_no_pixel(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    recipe = recipes.loads(json.dumps(MINE | {"refine": 3}))
    (tmp_path / "with.png").write_bytes(recipes.mark(images.encode(rgb), recipe))
    (tmp_path / "without.png").write_bytes(recipes.mark(images.encode(rgb), None))
    (tmp_path / "plain.json").write_text(recipe.dumps())
    assert recipes.read(tmp_path / "with.png") == recipes.read(tmp_path / "plain.json") == recipe
    for name in ("with.png", "without.png"):
        data = (tmp_path / name).read_bytes()
        assert np.array_equal(images.decode(data), rgb) and b"trainedAlgorithmicMedia" in data
        assert np.array_equal(cv2.imread(str(tmp_path / name))[:, :, ::-1], rgb)
        with Image.open(tmp_path / name) as opened:
            opened.verify()
    with pytest.raises(UserError, match="this picture carries no recipe"):
        recipes.read(tmp_path / "without.png")
    assert str(tmp_path) not in recipe.dumps()


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("hypernst", 2, "hypernst is 2; expected 1"),
        ("hypernst", True, "hypernst is True"),
        ("profile", "", "profile is ''"),
        ("profile", "../../x", "profile is '../../x'; expected a text of 1 to 255 characters, no path"),
        ("weights", {}, "weights lacks 'hypernet'"),
        ("weights.hypernet", "F" * 64, "expected 64 hex digits"),
        ("weights.other", SHA, "weights has 'other'"),
        ("portrait", None, "portrait is None; expected an object"),
        ("portrait.name", "/home/me.jpg", "no path"),
        ("portrait.face", 0, "portrait.face is 0"),
        ("portrait.no_face", "maybe", "portrait.no_face is 'maybe'"),
        ("styles", {str(i): {"sha256": SHA} for i in range(9)}, "styles has 9 entries; expected at most 8"),
        ("styles.a.path", "x", "styles.a has 'path'"),
        ("styles.a.sha256", 5, "styles.a.sha256 is 5"),
        ("regions.ears", {}, "regions has 'ears'"),
        ("regions.hair.t", 1.01, "regions.hair.t is 1.01; expected a number from 0 to 1"),
        ("regions.hair.t", "1", "regions.hair.t is '1'"),
        ("regions.hair.mix", {"z": 1}, "regions.hair.mix names 'z'"),
        ("regions.hair.mix", {"a": -1}, "regions.hair.mix.a is -1"),
        ("regions.hair.mix", {"a": 0.5}, "regions.hair.mix has weights of sum 0.5; expected 1"),
        ("regions.hair.mix", {"a": True}, "regions.hair.mix.a is True"),
        ("edits.age", 5.5, "edits.age is 5.5; expected a number from -5 to 5"),
        ("edits.age", True, "edits.age is True; expected a number"),
        ("size", "large", "size is 'large'; expected a whole number"),
        ("refine", 1.5, "refine is 1.5"),
        ("refine", -1, "refine is -1"),
        ("more", 1, "it has 'more'"),
    ],
)
def test_each_wrong_field_is_named(where: str, value: object, told: str) -> None:
    wrong = json.loads(json.dumps(MINE))
    *path, last = where.split(".")
    place = wrong
    for name in path:
        place = place[name]
    place[last] = value
    with pytest.raises(UserError) as caught:
        recipes.loads(json.dumps(wrong))
    assert told in str(caught.value) and "\n" not in str(caught.value) and caught.value.status == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON"),
        ("[]", "it is []; expected an object"),
        ("[" * 5000, "no JSON"),
        (json.dumps(MINE).replace("0.64", "NaN"), "NaN"),
        (json.dumps(MINE).replace('"profile"', '"hypernst"'), "a name is given twice"),
        (" " * (64 << 10) + "{}", "bytes; expected at most 65536"),
        (b"\xff\xfe{", "no JSON"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(text: str | bytes, told: str) -> None:
    with pytest.raises(UserError) as caught:
        recipes.loads(text)
    assert told in str(caught.value) and "\n" not in str(caught.value)
