"""An answer is not believed because it is an answer: faces that lie in the pixels come out upright, with a note."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.faces import alignment
from models.faces.detector import Face, FaceDetector, NoDetector, YuNet, largest
from models.faces.retinaface import RetinaFace
from models.faces.upright import centred_points
from pipeline import images, profile, weights
from pipeline.runner.spec import Item
from stages.preprocess import align

pytestmark = pytest.mark.weights
SETTINGS = profile.load("portable").align
SHARED = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[4] / "shared")) / "inputs"


@pytest.fixture(params=["yunet", "retinaface-mobilenet"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param == "yunet":
        return YuNet(weights.path("yunet"))
    if weights.local(request.param) is None:
        pytest.skip(f"{request.param} is not on this machine")
    return RetinaFace(weights.tensors(request.param))


def astronaut() -> np.ndarray:
    return images.decode(weights.path("astronaut").read_bytes())


def aligned(rgb: np.ndarray, detector: FaceDetector) -> align.Aligned:
    made = align.align_picture(np.ascontiguousarray(rgb), detector, SETTINGS, keep=False)
    assert made is not None
    return made


def turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    height, width = rgb.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.7)
    return cv2.warpAffine(rgb, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


def leaning(rgb: np.ndarray, degrees: float, fill: int = 0, mode: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """A square turned counterclockwise as editors turn it: all of it in a larger one, whose corners are filled."""
    side = len(rgb)
    larger = int(np.ceil(side * (abs(np.cos(np.radians(degrees))) + abs(np.sin(np.radians(degrees))))))
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1.0)
    turn[:, 2] += (larger - side) / 2
    made = cv2.warpAffine(rgb, turn, (larger, larger), borderMode=mode, borderValue=(fill, fill, fill))
    return images.decode(images.encode(made, ".jpg", 90))


def inner(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """The largest square of a square so turned that has no corners to fill."""
    whole, radians = leaning(rgb, degrees), np.radians(degrees)
    side = int(len(rgb) / (abs(np.cos(radians)) + abs(np.sin(radians)))) - 2
    at = (len(whole) - side) // 2
    return whole[at : at + side, at : at + side]


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_undone(detector: FaceDetector, quarter: int) -> None:
    rgb = astronaut()
    plain, other = aligned(rgb, detector), aligned(np.rot90(rgb, quarter), detector)
    told = re.fullmatch(r"turned (\d+) degrees (clockwise|counterclockwise)", other.note)
    assert plain.note == "" and told is not None
    by = int(told[1]) * (1 if told[2] == "clockwise" else -1)
    assert abs((by - 90 * quarter + alignment.tilt(plain.quad) + 180) % 360 - 180) < 6
    assert np.abs(plain.image.astype(float) - other.image).mean() < 8
    # the quad is that of the file's own image: cut there, it gives the same square
    again = alignment.crop(np.ascontiguousarray(np.rot90(rgb, quarter)), other.quad, SETTINGS.source_size)
    assert np.abs(again.astype(float) - other.image).mean() < 2


@pytest.mark.parametrize("degrees", [45, -45, 135, 225])
def test_any_angle_is_undone(detector: FaceDetector, degrees: int) -> None:
    rgb = np.pad(astronaut()[:360, 40:400], ((90, 90), (90, 90), (0, 0)), mode="edge")
    upright = alignment.tilt(aligned(rgb, detector).quad)
    lean = alignment.tilt(aligned(turned(rgb, degrees), detector).quad)
    assert abs((lean - upright + degrees + 180) % 360 - 180) < 10


@pytest.mark.parametrize(
    ("degrees", "fill", "mode"),
    [
        (45, 0, cv2.BORDER_CONSTANT),
        (-12, 255, cv2.BORDER_CONSTANT),
        (33, 128, cv2.BORDER_CONSTANT),
        (-45, 0, cv2.BORDER_REPLICATE),
        (150, 0, cv2.BORDER_REFLECT),
    ],
)
def test_an_aligned_photo_that_a_tool_turned_comes_out_as_it_was(
    detector: FaceDetector, degrees: float, fill: int, mode: int
) -> None:
    plain = aligned(astronaut(), detector).image
    other = aligned(leaning(plain, degrees, fill, mode), detector)
    assert abs(alignment.tilt(other.quad) + degrees) < 0.5
    assert (f"turned {abs(degrees)} degrees" in other.note) == (abs(degrees) > 30)
    assert np.abs(plain.astype(float) - other.image)[8:-8, 8:-8].mean() < 8


def shared_photo(name: str) -> np.ndarray:
    if not (file := SHARED.parent / "portraits" / name).exists():
        pytest.skip("no shared inputs here")
    return images.decode(file.read_bytes())


@pytest.mark.parametrize(
    ("number", "degrees", "fill"), [(3, 45, 0), (20, -45, 255), (38, 45, 0), (38, -45, 0), (77, 45, 255)]
)
def test_photos_turned_by_45_degrees_come_out_within_4_of_the_unturned_crop(
    number: int, degrees: float, fill: int
) -> None:
    """The crop of number 38 is nearly not aligned."""
    rgb, yunet = shared_photo(f"dev/content/content_{number:03d}.jpg"), YuNet(weights.path("yunet"))
    upright = alignment.tilt(aligned(rgb, yunet).quad)
    assert abs(alignment.tilt(aligned(leaning(rgb, degrees, fill), yunet).quad) + degrees - upright) < 4


@pytest.mark.parametrize(
    ("name", "degrees", "mode"),
    [
        ("dev/content/content_091.jpg", -45, cv2.BORDER_REPLICATE),  # a full beard
        ("train/content/content_0742.jpg", 170, cv2.BORDER_CONSTANT),  # stands on his head, and scores 0.9
        ("train/content/content_0963.jpg", 170, cv2.BORDER_CONSTANT),
        ("train/content/content_0894.jpg", 135, cv2.BORDER_REFLECT),  # mirrored faces in the corners score more
        ("train/content/content_0699.jpg", 135, None),  # hardly more than a third of the square is there
        ("train/content/content_0265.jpg", -45, None),
    ],
)
def test_none_of_these_comes_out_upside_down_or_on_its_side(name: str, degrees: float, mode: int | None) -> None:
    rgb, yunet = shared_photo(name), YuNet(weights.path("yunet"))
    made = inner(rgb, degrees) if mode is None else leaning(rgb, degrees, 0, mode)
    assert abs((alignment.tilt(aligned(made, yunet).quad) + degrees + 180) % 360 - 180) < 10


def test_a_square_that_is_nearly_aligned_moves_in_part(detector: FaceDetector) -> None:
    """The farther the face is from its place, the less of the square stays."""
    rgb = cv2.copyMakeBorder(aligned(astronaut(), detector).image, 60, 60, 60, 60, cv2.BORDER_REFLECT)
    kept = []
    for right in (10, 20, 45, 60):
        square = np.ascontiguousarray(rgb[60:-60, 60 - right : 572 - right])
        made = aligned(square, detector)
        kept.append((made.quad[:, 0].mean() - 256) / 512)
        assert made.note == ("already aligned" if right < 30 else "nearly aligned: moved in part")
    assert kept[0] == kept[1] == 0 < kept[2] < kept[3] < 60 / 512


def test_a_leaning_face_that_is_seen_only_faintly_is_found() -> None:
    yunet, rgb = YuNet(weights.path("yunet")), images.decode((weights.path("paintings") / "438754.jpg").read_bytes())
    assert yunet.detect(rgb) == []
    assert abs(alignment.tilt(aligned(rgb, yunet).quad) - 42) < 6  # Duccio's Madonna bows her head


@pytest.mark.parametrize("name", ["turned090.jpg", "turned180.jpg", "turned045.jpg"])
def test_the_turned_files(detector: FaceDetector, name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("no shared inputs here")
    (row,) = [align._row(Item("a", {"source": (SHARED / name).read_bytes()}, name), detector, SETTINGS, keep=False)]
    assert isinstance(row, dict) and "degrees" in row["note"], row
    found = alignment.quad_of_face(largest(detector.detect(images.decode(row["image"]))))
    assert abs(alignment.tilt(found)) < 10


def test_another_look_at_the_middle_of_a_square_sets_it_right(detector: FaceDetector) -> None:
    rgb = astronaut()
    square = aligned(rgb, detector).quad
    off = square[0] + (
        np.array([[0.07, -0.05], [-0.05, 0.93], [0.93, 1.05], [1.05, 0.07]]) @ (square[[3, 1]] - square[0])
    )
    both = centred_points(rgb, off, detector)
    assert len(both) == 2  # as it is, and mirrored
    for points in both:
        back = off[0] + alignment.quad_of(points) @ (off[[3, 1]] - off[0])
        assert np.abs(back - square).max() < 0.04 * np.hypot(*(square[3] - square[0]))
    assert centred_points(np.zeros_like(rgb), off, detector) == []


def test_upright_images_are_cut_as_before_and_a_turned_aligned_square_only_turned(detector: FaceDetector) -> None:
    plain = aligned(astronaut(), detector)
    assert "turned" not in plain.note and abs(alignment.tilt(plain.quad)) < 15
    other = aligned(np.rot90(plain.image), detector)
    assert np.array_equal(other.image, plain.image) and "already aligned" in other.note and "turned" in other.note


def test_of_several_turned_faces_the_largest_counts(detector: FaceDetector) -> None:
    face = astronaut()[:320, 60:380]
    small = np.pad(cv2.resize(face, (200, 200)), ((60, 60), (0, 0), (0, 0)), mode="edge")
    pair = np.hstack([face, small])
    plain, other = aligned(pair, detector), aligned(np.rot90(pair, 2), detector)
    assert "2 faces: the largest kept" in plain.note and "2 faces: the largest kept" in other.note
    assert np.abs(plain.image.astype(float) - other.image).mean() < 8


def test_no_face_is_none_in_any_turn(detector: FaceDetector) -> None:
    ramp = np.tile(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (200, 1, 3))
    assert align.align_picture(ramp, detector, SETTINGS, keep=False) is None
    kept = align.align_picture(ramp, NoDetector(), SETTINGS, keep=True)
    assert kept is not None and kept.quad.tolist() == [[50, 0], [50, 200], [250, 200], [250, 0]]


class Counting(YuNet):
    """Counts the looks at turned images."""

    looks = 0

    def glance(self, rgb: np.ndarray) -> list[Face]:
        self.looks += 1
        return super().glance(rgb)


def test_a_face_that_is_surely_upright_is_not_looked_at_again() -> None:
    counting = Counting(weights.path("yunet"))
    plain = aligned(astronaut(), counting)
    assert plain.score >= counting.upright and counting.looks == 0
