"""Alignment of a user's folder: good pictures come out, bad ones are named with a reason, twice is once."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.faces import alignment
from models.faces.detector import Face, NoDetector, YuNet, largest
from pipeline import images, profile, weights
from pipeline.caches import reader
from pipeline.context import Context
from stages.preprocess import align

SETTINGS = profile.load("portable").align


def test_largest_face_wins() -> None:
    points = np.zeros((5, 2), np.float32)
    small, big = Face((0, 0, 10, 10), points, 0.99), Face((0, 0, 20, 20), points, 0.9)
    assert largest([small, big]) is big
    with pytest.raises(ValueError):
        largest([])


def test_picture_without_a_face_is_cut_at_the_centre_or_refused() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 300, 3), np.uint8)
    assert align.align_picture(rgb, NoDetector(), SETTINGS, keep=False) is None
    kept = align.align_picture(rgb, NoDetector(), SETTINGS, keep=True)
    assert kept is not None and kept.score == 0 and "no face" in kept.note
    assert kept.image.shape == (SETTINGS.source_size, SETTINGS.source_size, 3)
    assert kept.quad.tolist() == [[100, 0], [100, 100], [200, 100], [200, 0]]


@pytest.fixture
def astronaut() -> np.ndarray:
    return images.decode(weights.path("astronaut").read_bytes())


@pytest.mark.weights
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_points_scale_with_the_picture(astronaut: np.ndarray, scale: float) -> None:
    detector = YuNet(weights.path("yunet"))
    reference = largest(detector.detect(astronaut)).points
    resized = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert np.abs(largest(detector.detect(resized)).points / scale - reference).max() < 8
    assert not detector.detect(np.full_like(astronaut, 127))
    with pytest.raises(ValueError):
        detector.detect(astronaut[..., 0])


@pytest.mark.weights
def test_turned_face_comes_out_upright_and_aligning_again_changes_nothing(astronaut: np.ndarray) -> None:
    detector = YuNet(weights.path("yunet"))
    turn = cv2.getRotationMatrix2D((224, 120), 20, 1.0)
    turned = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    plain = align.align_picture(astronaut, detector, SETTINGS, keep=False)
    upright = align.align_picture(turned, detector, SETTINGS, keep=False)
    assert plain is not None and upright is not None
    found = alignment.quad_of_face(largest(detector.detect(upright.image)))
    side = SETTINGS.source_size
    assert np.abs(found - alignment.centre_quad(side, side)).max() < 0.12 * side
    again = align.align_picture(plain.image, detector, SETTINGS, keep=False)
    assert again is not None and "already aligned" in again.note
    assert np.array_equal(again.image, plain.image)


@pytest.mark.weights
def test_which_of_several_faces_is_counted_from_the_left(astronaut: np.ndarray) -> None:
    """The middle one is the largest."""
    faces = [cv2.copyMakeBorder(astronaut[:256, 96:352], b, b, b, b, cv2.BORDER_REFLECT) for b in (40, 0, 60)]
    rgb = np.hstack([cv2.resize(face, (360, 360)) for face in faces])
    detector = YuNet(weights.path("yunet"))
    places = []
    for which in (None, 1, 2, 3):
        found = align.align_picture(rgb, detector, SETTINGS, keep=False, which=which)
        assert found is not None and found.note.startswith("3 faces: ")
        places.append(int(found.quad[:, 0].mean() // 360))
    assert places == [1, 0, 1, 2]
    for which in (0, 4, -1):
        with pytest.raises(ValueError, match=f"3 faces, so there is no face {which}, counted from the left"):
            align.align_picture(rgb, detector, SETTINGS, keep=False, which=which)


@pytest.mark.weights
def test_a_folder_of_good_and_bad_pictures(
    tmp_path: Path, astronaut: np.ndarray, capsys: pytest.CaptureFixture
) -> None:
    ctx = Context(
        profile=profile.load("portable"), cache=tmp_path / "cache", content=tmp_path / "c", style=tmp_path / "s"
    )
    for folder in (ctx.content, ctx.style):
        folder.mkdir()
        good = images.encode(astronaut, ".jpg")
        (folder / "good.jpg").write_bytes(good)
        (folder / "two.jpg").write_bytes(
            images.encode(np.hstack([astronaut, astronaut[::2, ::2].repeat(2, 0)]), ".jpg")
        )
        (folder / "text.jpg").write_text("not a picture")
        (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
        (folder / "grey.jpg").write_bytes(images.encode(np.full((200, 200, 3), 99, np.uint8), ".jpg"))
        (folder / "tiny.jpg").write_bytes(images.encode(astronaut[:16, :16], ".png"))
    assert align.run(ctx) == 0
    assert reader.keys(ctx.file("content", "images")) == ["good", "two"]
    assert reader.keys(ctx.file("style", "images")) == ["good", "grey", "two"]  # a style need not be a portrait
    lines = [json.loads(line) for line in (ctx.cache / "content/rejects.jsonl").read_text().splitlines()]
    reasons = {line["key"]: line["reason"] for line in lines}
    assert set(reasons) == {"text", "cut", "grey", "tiny"}
    assert (
        "--no-face keep takes the central square" in reasons["grey"]
        and "under 64" in reasons["tiny"]
        and "truncated" in reasons["cut"]
    )
    assert align.run(dataclasses.replace(ctx, max_rejects=2)) == 3
    kept = {"good", "two"}
    for no_face, grey, rejected in (("keep", {"grey"}, 3), ("reject", set(), 4)):  # decides what has no face alone
        capsys.readouterr()
        assert align.run(ctx, no_face=no_face) == 0
        assert f" {rejected} rejected (1 computed now)" in capsys.readouterr().err
        assert set(reader.keys(ctx.file("content", "images"))) == kept | grey
        assert align.run(ctx, no_face=no_face) == 0 and capsys.readouterr().err.count("(0 computed now)") == 2


def test_quads_of_samples_are_square() -> None:
    quad = alignment.quad_of(np.array([[10, 10], [50, 20], [30, 40], [10, 60], [40, 65]], np.float32))
    sides = np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1)
    assert np.allclose(sides, sides[0])
