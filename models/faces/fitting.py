"""Photos that a tool has turned within their picture, which they just fit in, or whose size they had.

What is around them may be anything: a colour, another picture, or the photo's own edges, drawn out or mirrored. So
either these edges are steps, or what is outside follows from what is inside. Both hold at the right angle alone.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

AROUND = 15.0  # degrees by which a photo may be turned otherwise than the face in it
TURNED = 10.0  # degrees below which it counts as straight
UNTOLD = 0.3  # cosine of twice the angle below which the picture's sides do not tell those of the photo
LEAST = 16  # pixels of the shorter side of a photo

STEPS = 256  # pixels of the picture's longer side at which steps are looked for
ACROSS = (-4.5, -1.5, 1.5, 4.5)  # pixels outwards from an edge whose differences are compared: a step is the middle one
ALONG = np.linspace(0.04, 0.96, 60)  # the places of an edge that are looked at, in its length
SEEN = 20  # places of an edge inside the picture, below which it tells nothing
STEP = 12.0  # levels by which the differences at the edges exceed those beside them, in the mean of all four
ALONE = 3.0  # degrees from the best angle beyond which they do so by at most half as much

MODES = {cv2.BORDER_REPLICATE: 1.15, cv2.BORDER_REFLECT: 1.0}  # how many times the photo tells its angle best
COARSE, FINE = 96, 192  # pixels of the picture's longer side at which its angle is looked for, and refined
NEARBY = (4, 8)  # degrees from the best angle at which what is outside follows worse, unless by chance,
WORSE = 1.8  # by this factor
NOISE, LEVELS = 0.5, 10.0  # what it differs by at least, and at most, in the mean
ROOM = 2  # pixels around the photo that are not compared

Quad = NDArray[np.float64]
Guess = tuple[float, bool]  # degrees by which the photo is turned clockwise; whether it has the picture's own size


def fitting_photo(rgb: NDArray[np.uint8], lean: float) -> Quad | None:
    """The corners [4, 2] of the photo that lies turned in RGB [H, W, 3] u8; None where none shows.

    `lean` is by how many degrees the face in it is turned clockwise. Top left, bottom left, bottom right and top right
    of the photo turned by at most 45 degrees, in pixel edges.
    """
    if min(rgb.shape[:2]) * COARSE < 2 * LEAST * max(rgb.shape[:2]):
        return None
    quad = _stepped(rgb, lean)
    return _continued(rgb, lean) if quad is None else quad


def _stepped(rgb: NDArray[np.uint8], lean: float) -> Quad | None:
    """The photo whose edges are steps."""
    small = _shrunk(rgb, STEPS)

    def heights(middle: float, reach: float, step: float) -> dict[Guess, float]:
        found = {}
        for angle in _angles(middle, reach, step):
            for whole in (False, True):
                if (quad := _guessed(small, (angle, whole))) is not None:
                    found[angle, whole] = _height(small, quad)
        return found

    found = heights(lean, AROUND, 0.5)
    (angle, whole), height = max(found.items(), key=lambda item: item[1], default=((0.0, False), 0.0))
    others = [other for (turn, _), other in found.items() if abs(_acute(turn - angle)) > ALONE]
    if abs(angle) < TURNED or height < STEP or max(others, default=height) > height / 2:
        return None
    closely = {guess: height for guess, height in heights(angle, 0.4, 0.1).items() if guess[1] == whole}
    quad = _guessed(small, max(closely, key=lambda guess: closely[guess]))
    return None if quad is None else quad * _scale(rgb, small)


def _height(rgb: NDArray[np.uint8], quad: Quad) -> float:
    """By how many levels the edges of a quad are steps, in the mean of the four."""
    limit, middle, heights = np.array(rgb.shape[1::-1]) - 1, quad.mean(0), []
    for start, end in zip(quad, np.roll(quad, -1, 0), strict=True):
        outwards = (start + end) / 2 - middle
        outwards /= np.hypot(*outwards)
        places = start + ALONG[:, None] * (end - start) - 0.5
        x, y = np.stack([places + outwards * far for far in ACROSS]).astype(np.float32).transpose(2, 0, 1)
        seen = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        before, step, behind = np.abs(np.diff(seen, axis=0)).max(2)
        within = ((places + 1.5 * outwards >= 0) & (places + 1.5 * outwards <= limit)).all(1)
        heights.append((step - np.maximum(before, behind))[within].mean() if within.sum() >= SEEN else 0.0)
    return float(np.mean(heights))


def _continued(rgb: NDArray[np.uint8], lean: float) -> Quad | None:
    """The photo whose edges are drawn out or mirrored around it."""
    small = _shrunk(rgb, COARSE)
    found = {}
    for angle in _angles(lean, AROUND, 1.0):
        for mode, times in MODES.items():
            if (quad := _quad(small, angle, times)) is not None:
                found[angle, mode] = _difference(small, quad, mode)
    (angle, mode), least = min(found.items(), key=lambda item: item[1], default=((0.0, 0), np.inf))
    near = [
        value
        for (turn, how), value in found.items()
        if how == mode and NEARBY[0] <= abs(_acute(turn - angle)) <= NEARBY[1]
    ]
    if abs(angle) < TURNED or least > LEVELS or min(near, default=0.0) < WORSE * max(least, NOISE):
        return None
    larger = _shrunk(rgb, FINE)
    for step in (0.5, 0.2):
        quads = {turn: _quad(larger, turn, MODES[mode]) for turn in _angles(angle, 2 * step, step)}
        told = {turn: _difference(larger, quad, mode) for turn, quad in quads.items() if quad is not None}
        angle = min(told, key=lambda turn: told[turn])
    quad = _quad(larger, angle)
    return None if quad is None else quad * _scale(rgb, larger)


def _difference(rgb: NDArray[np.uint8], quad: Quad, mode: int) -> float:
    """The mean difference, in levels, of what is outside a quad from what follows from its inside."""
    around = rgb.shape[1::-1]
    size = (round(float(np.hypot(*(quad[3] - quad[0])))), round(float(np.hypot(*(quad[1] - quad[0])))))
    if min(size) < LEAST:
        return np.inf
    corners = np.array([[0, 0], [0, size[1]], size], np.float32)
    to_photo = cv2.getAffineTransform(quad[:3].astype(np.float32) - 0.5, corners - 0.5)
    photo = cv2.warpAffine(rgb, to_photo, size, borderMode=cv2.BORDER_REPLICATE)
    made = cv2.warpAffine(photo, to_photo, around, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR, borderMode=mode)
    covered = np.ones((size[1] + 2 * ROOM, size[0] + 2 * ROOM), np.uint8)
    to_photo[:, 2] += ROOM
    outside = cv2.warpAffine(covered, to_photo, around, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST) == 0
    return float(cv2.absdiff(made, rgb)[outside].mean()) if outside.any() else np.inf


def _angles(middle: float, reach: float, step: float) -> list[float]:
    return [_acute(middle + turn) for turn in np.arange(-reach, reach + step / 2, step)]


def _acute(degrees: float) -> float:
    """The turn, from -45 to 45, by which a rectangle lies as by this one."""
    return float((degrees + 45) % 90 - 45)


def _shrunk(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    shrink = side / max(rgb.shape[:2])
    return cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else rgb


def _scale(rgb: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.array(rgb.shape[1::-1]) / small.shape[1::-1]


def _guessed(rgb: NDArray[np.uint8], guess: Guess) -> Quad | None:
    angle, whole = guess
    return _whole(rgb, angle) if whole else _quad(rgb, angle)


def _quad(rgb: NDArray[np.uint8], angle: float, times: float = 1.0) -> Quad | None:
    """The corners of the photo that is turned so and just fits in, or of one `times` as large; None where none can.

    It is a square where the picture is one, or its sides do not tell.
    """
    height, width = rgb.shape[:2]
    cos, sin = np.cos(np.radians(angle)), abs(np.sin(np.radians(angle)))
    if abs(width - height) <= 1 or cos**2 - sin**2 < UNTOLD:
        return _turned(rgb, angle, 0.5, times)
    across, down = width * cos - height * sin, height * cos - width * sin
    return _turned(rgb, angle, across / (across + down), times) if min(across, down) > 0 else None


def _whole(rgb: NDArray[np.uint8], angle: float) -> Quad:
    """The corners of the photo that is turned so and has the picture's own size."""
    height, width = rgb.shape[:2]
    times = np.cos(np.radians(angle)) + abs(np.sin(np.radians(angle)))
    return _turned(rgb, angle, width / (width + height), float(times))


def _turned(rgb: NDArray[np.uint8], angle: float, share: float, times: float = 1.0) -> Quad:
    """The corners of a rectangle in the middle that is turned so; its width is this share of its width and height."""
    height, width = rgb.shape[:2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    both = times * (width + height) / (cos + abs(sin))
    x, y = np.array([cos, sin]) * both * share / 2, np.array([-sin, cos]) * both * (1 - share) / 2
    centre = np.array([width, height]) / 2
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
