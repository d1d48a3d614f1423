"""Photos turned by a tool that filled the corners are found with their angle; plain backgrounds are none."""

import cv2
import numpy as np
import pytest

from models.faces.alignment import tilt
from models.faces.filled import photo_in, straight
from pipeline import images

PHOTO = cv2.resize(np.random.default_rng(1).integers(0, 256, (12, 15, 3), np.uint8), (300, 240))


def turned(photo: np.ndarray, degrees: float, fill: int = 0, room: int = 0) -> np.ndarray:
    """The photo turned counterclockwise as editors turn it: all of it in a larger picture, whose corners are filled."""
    height, width = photo.shape[:2]
    cos, sin = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    size = (int(np.ceil(width * cos + height * sin)) + room, int(np.ceil(width * sin + height * cos)) + room)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(photo, turn, size, borderValue=(fill, fill, fill))


@pytest.mark.parametrize("fill", [0, 128, 255])
@pytest.mark.parametrize("degrees", [45, -45, 30, -10, 77])
@pytest.mark.parametrize("room", [0, 60])
def test_a_turned_photo_is_found_and_set_straight(fill: int, degrees: float, room: int) -> None:
    rgb = images.decode(images.encode(turned(PHOTO, degrees, fill, room), ".jpg", 85))
    photo = photo_in(rgb)
    assert photo is not None
    assert abs((tilt(photo) + degrees + 45) % 90 - 45) < 0.5
    upright = np.rot90(straight(rgb, photo), round((degrees + tilt(photo)) / -90))
    assert np.abs(np.array(upright.shape[:2]) - PHOTO.shape[:2]).max() <= 4
    same = cv2.resize(np.ascontiguousarray(upright), (300, 240)).astype(float)[8:-8, 8:-8]
    assert np.abs(same - PHOTO[8:-8, 8:-8]).mean() < 6


def test_a_dark_photo_is_found_by_its_corners() -> None:
    dark = PHOTO.copy()
    dark[40:, :40], dark[60:, 260:], dark[-40:, 100:200] = 0, 0, 0
    photo = photo_in(turned(dark, 45))
    assert photo is not None and abs(abs(tilt(photo)) - 45) < 0.5


def test_a_small_photo_of_a_large_picture_is_found_to_a_pixel_of_a_smaller_one() -> None:
    photo = photo_in(turned(cv2.resize(PHOTO, (2000, 1600)), 20, 255))
    assert photo is not None and abs(tilt(photo) + 20) < 0.1
    assert abs(np.hypot(*(photo[3] - photo[0])) - 2000) < 8


def circle(rgb: np.ndarray) -> np.ndarray:
    return cv2.ellipse(rgb, (150, 120), (60, 100), 20, 0, 360, (200, 150, 120), -1)


@pytest.mark.parametrize(
    "rgb",
    [
        pytest.param(PHOTO, id="all of it a photo"),
        pytest.param(np.full((200, 200, 3), 255, np.uint8), id="nothing"),
        pytest.param(np.zeros((1, 1, 3), np.uint8), id="a pixel"),
        pytest.param(circle(np.full((240, 300, 3), 255, np.uint8)), id="a head before a plain wall"),
        pytest.param(cv2.copyMakeBorder(PHOTO, 50, 50, 50, 50, cv2.BORDER_CONSTANT), id="a straight photo in a frame"),
        pytest.param(turned(PHOTO, 2), id="hardly turned"),
    ],
)
def test_what_is_no_turned_photo(rgb: np.ndarray) -> None:
    assert photo_in(rgb) is None
