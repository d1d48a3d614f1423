"""Which way up faces are. Detectors see leaning and turned faces too: less surely, and as if they stood upright.

So a score below `FaceDetector.upright` says little about the direction. Glances at small views, turned in steps of 45
degrees, tell: the surest one has the face upright (measured by `bench/faces/turns.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.alignment import crop, quad_of_face, tilt
from models.faces.detector import Face, FaceDetector, largest

TILT = 45.0  # degrees by which the points of a face that is seen upright may lean
QUARTERS, EIGHTHS = (0, 90, 180, 270), (45, 135, 225, 315)
AROUND = 1.6  # the side of what a glance at a face shows, in sides of its box
FACE, WHOLE, LEANING = 64, 256, 96  # pixels of the sides of glances at a face, at all in quarter and in eighth turns
CLOSER = 192  # pixels of the face's square in a glance at it
NEAR = 0.05  # by how much the score of a turned glance may be lower than that of the look which it questions
MARGIN = 0.03  # by how much it must be higher than that of the view as it is

# Degrees by which what is seen is turned counterclockwise, what is seen, and what places a face of it in the image.
View = tuple[int, NDArray[np.uint8], Callable[[Face], Face]]


def upright_faces(
    rgb: NDArray[np.uint8], detector: FaceDetector, usable: Callable[[Face, int, int], bool]
) -> tuple[list[Face], int]:
    """The usable faces of RGB [H, W, 3] u8, and how many quarter turns counterclockwise set the largest one upright.

    The faces are those of the image so turned; the largest may lean, and its points lean with it. `usable` judges a
    face by itself and its image's width and height.
    """

    def found(image: NDArray[np.uint8]) -> list[Face]:
        return [face for face in detector.detect(image) if usable(face, *image.shape[1::-1])]

    faces = found(rgb)
    spot = largest(faces) if faces else None
    if spot and _stands(spot) and spot.score >= detector.upright:
        return faces, 0
    least = spot.score - NEAR if spot else detector.score - 2 * NEAR
    height, width = rgb.shape[:2]
    best = None
    if spot:
        x, y, w, h = spot.box
        place = rgb, np.array([x + w / 2, y + h / 2]), AROUND * max(w, h), FACE
        best = _surest(detector, _squares(*place, QUARTERS), lambda: _squares(*place, EIGHTHS))
    if best is None or (best[1] and best[0].score < least):
        place = rgb, np.array([width, height]) / 2, float(max(width, height)), LEANING
        best = _surest(detector, _turns(rgb, known=not spot), lambda: _squares(*place, EIGHTHS))
    if best is None or best[1] == 0 or best[0].score < least:
        return faces, 0
    turn, face = round(best[1] / 90) % 4, closer(rgb, quad_of_face(best[0]), detector)
    if face is None or face.score < least or not usable(face, width, height):
        return faces, 0
    face = turned(face, turn, width, height)
    others = found(np.ascontiguousarray(np.rot90(rgb, turn))) if turn else faces
    if best[1] in QUARTERS and any(_same(other, face) for other in others):
        return others, turn
    return [face, *(other for other in others if not _same(other, face))], turn


def closer(rgb: NDArray[np.uint8], square: NDArray[np.float64], detector: FaceDetector) -> Face | None:
    """The face that a glance at a quad shows upright."""
    seen = detector.glance(crop(rgb, square, CLOSER))
    return _placed(largest(seen), square, CLOSER) if seen and _stands(largest(seen)) else None


def turned(face: Face, turn: int, width: int, height: int) -> Face:
    """A face of an image of this size, in the image turned by `turn` quarters counterclockwise."""
    for _ in range(turn):
        x, y, w, h = face.box
        points = np.stack([face.points[:, 1], width - face.points[:, 0]], 1).astype(np.float32)
        face = replace(face, box=(y, width - x - w, h, w), points=points)
        width, height = height, width
    return face


def _surest(
    detector: FaceDetector, quarters: Iterable[View], eighths: Callable[[], Iterable[View]]
) -> tuple[Face, int] | None:
    """The surest face in views, in the image, and the degrees by which its view is turned; None where there is none.

    Eighths are looked at where no quarter turn shows one surely.
    """
    best: tuple[Face, int] | None = None
    for views in (lambda: quarters, eighths):
        for degrees, view, placed in views():
            for face in filter(_stands, detector.glance(view)[:1]):
                if best is None or face.score > best[0].score + (MARGIN if best[1] == 0 else 0):
                    best = placed(face), degrees
        if best and best[0].score >= detector.settled:
            break
    return best


def _squares(
    rgb: NDArray[np.uint8], centre: NDArray[np.float64], side: float, size: int, directions: Sequence[int]
) -> Iterator[View]:
    """A square of the image, seen in some directions."""
    wide = round(size * np.sqrt(2)) + 2  # what is inside the square in any direction
    around = _square(centre, side * wide / size, 0)
    low, high = np.floor(around.min(0)).clip(0).astype(int), np.ceil(around.max(0)).astype(int)
    small = crop(rgb[low[1] : high[1], low[0] : high[0]], around - low, wide)  # only this piece is resized
    for degrees in directions:
        view = crop(small, _square(np.array([wide, wide]) / 2, size, degrees), size)
        yield degrees, view, partial(_placed, square=_square(centre, side, degrees), size=size)


def _turns(rgb: NDArray[np.uint8], known: bool) -> Iterator[View]:
    """A small copy of the image in quarter turns; not as it is, if that is `known`."""
    height, width = rgb.shape[:2]
    shrink = min(1.0, WHOLE / max(height, width))
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)

    def placed(face: Face, turn: int) -> Face:
        face = turned(face, -turn % 4, *(size if turn % 2 == 0 else size[::-1]))
        x, y, w, h = (value * width / size[0] for value in face.box)
        return replace(face, box=(x, y, w, h), points=face.points * np.float32(width / size[0]))

    for turn in range(known, 4):
        yield 90 * turn, np.ascontiguousarray(np.rot90(small, turn)), partial(placed, turn=turn)


def _square(centre: NDArray[np.float64], side: float, degrees: float) -> NDArray[np.float64]:
    """A square turned clockwise, as a quad: what it cuts out is turned counterclockwise."""
    angle = np.radians(degrees)
    x = np.array([np.cos(angle), np.sin(angle)]) * side / 2
    y = np.array([-x[1], x[0]])
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def _placed(face: Face, square: NDArray[np.float64], size: int) -> Face:
    """A face of what a square shows, `size` pixels wide, in the image that the square is cut from."""
    across, down = (square[3] - square[0]) / size, (square[1] - square[0]) / size
    x, y, w, h = face.box
    centre = square[0] + (x + w / 2) * across + (y + h / 2) * down
    w, h = w * float(np.hypot(*across)), h * float(np.hypot(*across))
    points = square[0] + face.points[:, :1] * across + face.points[:, 1:] * down
    return Face((float(centre[0] - w / 2), float(centre[1] - h / 2), w, h), points.astype(np.float32), face.score)


def _stands(face: Face) -> bool:
    return abs(tilt(quad_of_face(face))) <= TILT


def _same(other: Face, face: Face) -> bool:
    x, y, w, h = other.box
    return abs(np.array([x + w / 2, y + h / 2]) - face.points.mean(0)).max() < max(w, h) / 2
