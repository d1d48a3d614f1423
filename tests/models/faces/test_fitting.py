"""Photos that a tool turned are found with their angle, whatever it put around them; other pictures are none."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from models.faces.alignment import tilt
from models.faces.fitting import fitting_photo
from pipeline import images
from tests.models.faces.test_filled import PHOTO

SQUARE = PHOTO[:, 30:270]
Around = Callable[[np.ndarray, np.ndarray], np.ndarray]


def turned(photo: np.ndarray, degrees: float, mode: int, same_size: bool = False) -> np.ndarray:
    """The photo turned counterclockwise, all of it in a larger picture or in one of its own size."""
    height, width = photo.shape[:2]
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    size = (int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos)))
    size = (width, height) if same_size else size
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(photo, turn, size, borderMode=mode)


def before(behind: Around, photo: np.ndarray, degrees: float) -> np.ndarray:
    """The photo turned before a picture that `behind` makes of it, of the size that it needs."""
    covered = turned(np.full_like(photo, 255), degrees, cv2.BORDER_CONSTANT) > 127
    return np.where(covered, turned(photo, degrees, cv2.BORDER_REPLICATE), behind(photo, covered))


def ramp(photo: np.ndarray, covered: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.linspace(30, 220, len(covered)).astype(np.uint8)[:, None, None], covered.shape)


def blurred(photo: np.ndarray, covered: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(cv2.resize(photo, covered.shape[1::-1]), (0, 0), 15)


MADE = {
    "drawn out": lambda photo, degrees: turned(photo, degrees, cv2.BORDER_REPLICATE),
    "drawn out and blurred": lambda photo, degrees: before(
        lambda photo, _: cv2.GaussianBlur(turned(photo, degrees, cv2.BORDER_REPLICATE), (0, 0), 6), photo, degrees
    ),
    "mirrored": lambda photo, degrees: turned(photo, degrees, cv2.BORDER_REFLECT_101),
    "before a ramp": lambda photo, degrees: before(ramp, photo, degrees),
    "before itself, blurred": lambda photo, degrees: before(blurred, photo, degrees),
    "before black": lambda photo, degrees: turned(photo, degrees, cv2.BORDER_CONSTANT),
    "within its size": lambda photo, degrees: turned(photo, degrees, cv2.BORDER_CONSTANT, same_size=True),
}


@pytest.mark.parametrize("how", MADE)
@pytest.mark.parametrize("degrees", [45, -30, 61])
def test_a_turned_photo_is_found_whatever_is_around_it(how: str, degrees: float) -> None:
    rgb = images.decode(images.encode(MADE[how](SQUARE, degrees), ".jpg", 85))
    quad = fitting_photo(rgb, -degrees + 7)
    assert quad is not None
    assert abs((tilt(quad) + degrees + 45) % 90 - 45) < 0.6
    assert abs(np.hypot(*(quad[3] - quad[0])) - len(SQUARE)) < 4
    assert np.abs(quad.mean(0) - np.array(rgb.shape[1::-1]) / 2).max() < 1


@pytest.mark.parametrize("how", ["drawn out", "mirrored", "before a ramp"])
def test_a_photo_that_is_no_square_is_found_with_its_sides(how: str) -> None:
    quad = fitting_photo(MADE[how](PHOTO, 25), -25)
    assert quad is not None and abs(tilt(quad) + 25) < 0.6
    sides = [np.hypot(*(quad[3] - quad[0])), np.hypot(*(quad[1] - quad[0]))]
    assert np.abs(np.array(sides) - (300, 240)).max() < 6


@pytest.mark.parametrize(
    "rgb",
    [
        pytest.param(PHOTO, id="a photo"),
        pytest.param(turned(PHOTO, 45, cv2.BORDER_REFLECT)[100:300, 100:300], id="a turned photo's middle"),
        pytest.param(np.full((200, 200, 3), 255, np.uint8), id="nothing"),
        pytest.param(np.zeros((70, 65, 3), np.uint8) + PHOTO[:70, :65] // 2, id="a small one"),
        pytest.param(np.zeros((3, 400, 3), np.uint8), id="a line"),
        pytest.param(cv2.line(PHOTO.copy(), (0, 240), (240, 0), (255, 0, 0), 9), id="with a leaning line"),
        pytest.param(cv2.GaussianBlur(PHOTO, (0, 0), 25), id="without any edge"),
        pytest.param(turned(SQUARE, 4, cv2.BORDER_REPLICATE), id="hardly turned"),
    ],
)
@pytest.mark.parametrize("lean", [45, -30])
def test_what_is_no_turned_photo(rgb: np.ndarray, lean: float) -> None:
    assert fitting_photo(rgb, lean) is None
