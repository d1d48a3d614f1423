"""Which way up faces are. Detectors see leaning and turned faces too: less surely, and as if they stood upright.

So a score below `FaceDetector.upright` says little about the direction. Glances at the place, turned in steps of 45
degrees, tell: the surest one has the face upright (measured by `bench/faces/turns.py`). Where a detector finds no face,
the places that it took for faces most nearly are looked at, and the whole image.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.alignment import crop, quad_of_face, tilt
from models.faces.detector import Face, FaceDetector, largest

Usable = Callable[[Face, int, int], bool]  # judges a face by itself and its image's width and height
Found = tuple[Face, int]  # a face, and the degrees by which the view that shows it upright is turned counterclockwise

TILT = 45.0  # degrees by which the points of a face that is seen upright may lean
QUARTERS, EIGHTHS = (0, 90, 180, 270), (45, 135, 225, 315)
AROUND = 1.6  # the side of what a glance shows, in sides of the box of the face
VIEW, WHOLE = 64, 192  # pixels of the longer sides of glances at a place and at the whole image
CLOSER = (128, 192)  # pixels of the sides of the glances that a face found so must pass
SQUARE, MIDDLE = 512, (128, 480, 96, 416)  # pixels of a square's side; top, bottom, left and right of the face in it
TILTS = (-5, 5)  # degrees by which a square is turned for looks whose errors cancel out
ROOM = 15  # pixels around a view: what lies in the corners of one that is turned by an eighth
TRACES = 2  # most places that may have a face, looked at where none is found
LIKELY, LIKELIER = 0.3, 0.6  # the score from which on such a place is looked at; where a face is found that is no use
NEAR = 0.05  # by how much the score of a turned glance may be lower than that of the look which it questions
AHEAD = 0.02  # by how much it must be higher than that of the view as it is
APART = 0.08  # by how much the score of a glance may be lower than the best for closer ones
HARDLY = 0.1  # by how much that of a face found so may be lower than what the detector takes for a face


def upright_faces(rgb: NDArray[np.uint8], detector: FaceDetector, usable: Usable) -> tuple[list[Face], int]:
    """The usable faces of RGB [H, W, 3] u8, and how many quarter turns counterclockwise set the largest one upright.

    The faces are those of the image so turned; the largest may lean, and its points lean with it.
    """
    height, width = rgb.shape[:2]
    found, traces = detector.scan(rgb)
    faces = [face for face in found if usable(face, width, height)]
    spot = largest(faces) if faces else None
    if spot and _stands(spot) and spot.score >= detector.upright:
        return faces, 0
    likely = list(itertools.takewhile(lambda trace: trace.score >= LIKELY, traces))
    likely = [trace for trace in likely if usable(trace, width, height) or _fills(trace, width, height)]
    if spot is None and found and found[0].score >= detector.score and not (likely and likely[0].score >= LIKELIER):
        return [], 0  # a face that is too small to use remains so
    least = spot.score - NEAR if spot else 0.0
    best = _surest(rgb, _at(rgb, spot, detector), detector) if spot else None
    if best is None or (best[1] and best[0].score < least):
        best = _surest(rgb, _anywhere(rgb, _apart(likely, spot), detector), detector)
    if best is None or best[1] == 0 or best[0].score < least:
        return faces, 0
    if not usable(best[0], width, height):  # too little of it is there: nothing, rather than a face on its side
        return [] if best[1] in QUARTERS[1:] or best[1] in EIGHTHS[1:3] else faces, 0
    face, degrees = best
    turn = round(degrees / 90) % 4
    face, others = turned(face, turn, width, height), faces
    if turn:
        upright = np.ascontiguousarray(np.rot90(rgb, turn))
        others = [other for other in detector.detect(upright) if usable(other, *upright.shape[1::-1])]
    if degrees % 90 == 0 and any(_same(other, face) for other in others):
        return others, turn
    return [face, *(other for other in others if not _same(other, face))], turn


def closer(rgb: NDArray[np.uint8], square: NDArray[np.float64], detector: FaceDetector) -> Face | None:
    """The face that glances of several sizes at a quad show upright; None where one shows none, or hardly.

    What only looks like a face does so in few sizes. Its score is their mean.
    """
    found, scores = None, []
    piece, inside = _piece(rgb, square)
    for side in CLOSER:
        seen = detector.glance(crop(piece, inside, side))
        if not seen or not _stands(face := largest(seen)) or face.score < detector.score - HARDLY:
            return None
        found = _placed(face, square, side)
        scores.append(face.score)
    return found and replace(found, score=float(np.mean(scores)))


def looks_around(
    rgb: NDArray[np.uint8], square: NDArray[np.float64], detector: FaceDetector
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Quads that are turned a little to both sides of one, each with the points of looks at it, as `centred_points`.

    A detector moves points towards upright ones, and to one side: over these looks that cancels out.
    """
    side = float(np.hypot(*(square[3] - square[0])))
    for degrees in TILTS:
        view = _square(square.mean(0), side, tilt(square) + degrees)
        for points in centred_points(rgb, view, detector):
            yield view, points


def centred_points(
    rgb: NDArray[np.uint8], square: NDArray[np.float64], detector: FaceDetector
) -> list[NDArray[np.float64]]:
    """The five points [5, 2] of the face in the middle of a quad, in its sides: as it is, and mirrored."""
    top, bottom, left, right = MIDDLE
    view = crop(*_piece(rgb, square), SQUARE)[top:bottom, left:right]
    found = []
    for mirrored in (False, True):
        if seen := detector.glance(np.ascontiguousarray(view[:, ::-1] if mirrored else view)):
            points = largest(seen).points.astype(np.float64)
            points = (np.array([right - left, 0]) + points * (-1, 1))[[1, 0, 2, 4, 3]] if mirrored else points
            found.append((points + np.array([left, top])) / SQUARE)
    return found


def turned(face: Face, turn: int, width: int, height: int) -> Face:
    """A face of an image of this size, in the image turned by `turn` quarters counterclockwise."""
    for _ in range(turn):
        x, y, w, h = face.box
        points = np.stack([face.points[:, 1], width - face.points[:, 0]], 1).astype(np.float32)
        face = replace(face, box=(y, width - x - w, h, w), points=points)
        width, height = height, width
    return face


def _apart(likely: Iterable[Face], spot: Face | None) -> list[Face]:
    """The first TRACES likely faces of which none lies where another does, or where `spot` does."""
    apart: list[Face] = []
    for trace in likely:
        if not any(_same(other, trace) for other in (*apart, *filter(None, [spot]))):
            apart.append(trace)
        if len(apart) == TRACES:
            break
    return apart


def _anywhere(rgb: NDArray[np.uint8], traces: Iterable[Face], detector: FaceDetector) -> list[Found]:
    """The faces that glances at `traces`, and at the whole image in quarter turns, show upright."""
    found: list[Found] = []
    for trace in traces:
        found += _at(rgb, trace, detector)
        if any(face.score >= detector.settled for face, _ in found):
            return found
    height, width = rgb.shape[:2]
    shrink = min(1.0, WHOLE / max(height, width))
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    small = rgb
    while max(small.shape) >= 2 * WHOLE:
        small = cv2.pyrDown(small)  # faster than one step to the size
    small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    scale = np.float32(width / size[0])
    for turn in (1, 2, 3):
        for face in detector.glance(np.ascontiguousarray(np.rot90(small, turn)))[:1]:
            if _stands(face):
                face = turned(face, 4 - turn, *(size if turn == 2 else size[::-1]))
                x, y, w, h = (float(value * scale) for value in face.box)
                found.append((replace(face, box=(x, y, w, h), points=face.points * scale), 90 * turn))
    return found


def _at(rgb: NDArray[np.uint8], place: Face, detector: FaceDetector) -> list[Found]:
    """The faces that glances at a place show upright: as it is and upside down, then in the other directions.

    There are no others where the first shows one surely.
    """
    around, centre, side = _around(rgb, place)
    found: list[Found] = []
    for directions in ((0, 180), (90, 270, *EIGHTHS)):
        for degrees in directions:
            seen = detector.glance(_view(around, degrees))
            if seen and _stands(seen[0]):
                found.append((_placed(seen[0], _square(centre, side, degrees), VIEW), degrees))
        first = max(found, key=lambda one: one[0].score, default=None)
        if first and first[1] == 0 and first[0].score >= detector.settled:
            return [first]
    return found


def _surest(rgb: NDArray[np.uint8], found: Sequence[Found], detector: FaceDetector) -> Found | None:
    """The face that closer glances show upright most surely, of those that are about as sure; None without one.

    Its score is the mean of all glances. Faces that lean or lie may look nearly as if they stood upside down.
    """
    best: Found | None = None
    least = max((face.score for face, _ in found), default=0.0) - APART
    found = [one for one in found if one[0].score >= least]
    if len(found) == 1 and found[0][1] == 0:
        return found[0]
    for face, degrees in found:
        if closely := closer(rgb, quad_of_face(face), detector):
            score = (face.score + len(CLOSER) * closely.score) / (1 + len(CLOSER))
            if best is None or score > best[0].score + (0 if best[1] else AHEAD):
                best = replace(closely, score=score), degrees
    return best


def _around(rgb: NDArray[np.uint8], place: Face) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """What a glance at a face shows, in the size of a view with ROOM around it; the centre and side of the view."""
    x, y, w, h = place.box
    centre, side = np.array([x + w / 2, y + h / 2]), AROUND * max(w, h)
    wide = VIEW + 2 * ROOM
    return crop(*_piece(rgb, _square(centre, side * wide / VIEW, 0)), wide), centre, side


def _piece(rgb: NDArray[np.uint8], square: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image that a square shows, so that only this is resized, and the square in it."""
    edge = np.array(rgb.shape[1::-1])
    low, high = np.floor(square.min(0)).clip(0, edge - 1).astype(int), np.ceil(square.max(0)).clip(1).astype(int)
    return rgb[low[1] : high[1], low[0] : high[0]], square - low


def _view(around: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """What `_around` gave, without its room, turned counterclockwise."""
    if degrees in QUARTERS:
        return np.ascontiguousarray(np.rot90(around[ROOM:-ROOM, ROOM:-ROOM], degrees // 90))
    return crop(around, _square(np.full(2, len(around) / 2), VIEW, degrees), VIEW)


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


def _fills(face: Face, width: int, height: int) -> bool:
    """Whether a face is so large that much of it may lie outside an image of this size."""
    return max(face.box[2:]) >= min(width, height) / 2


def _stands(face: Face) -> bool:
    return abs(tilt(quad_of_face(face))) <= TILT


def _same(other: Face, face: Face) -> bool:
    x, y, w, h = other.box
    return abs(np.array([x + w / 2, y + h / 2]) - face.points.mean(0)).max() < max(w, h) / 2
