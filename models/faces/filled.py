"""Photos that a tool has turned: they lie at an angle in a larger picture, whose corners it filled with one colour."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 1024  # pixels of the longer side at which the photo's edges are looked for
LEAST = 32  # pixels there of the shorter side of a picture, and of a photo
NEAR = 24  # levels by which what is filled may differ from the colour: compression leaves traces
TURNED = 3.0  # degrees below which a photo in a plain frame counts as straight
FULL = 0.7  # the least share of each edge of a photo that differs from the colour, unless
SNUG = 0.01  # its corners are no farther from the four edges of the picture than this, in longer sides
INSIDE = 0.02  # how far inside the edges that is looked at, in sides
BORDER, EDGE = 2, 0.003  # what the colour around may have entered along the edges: pixels, or a share of the sides
SQUARE = 0.01  # difference of its sides, as a share, below which a photo is a square


def photo_in(rgb: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The corners [4, 2] of the photo that lies turned in RGB [H, W, 3] u8 whose corners are filled; None without one.

    Top left, bottom left, bottom right and top right of the photo turned by less than 45 degrees, in pixel edges.
    """
    shrink = min(1.0, SIDE / max(rgb.shape[:2]))
    if min(rgb.shape[:2]) * shrink < LEAST:
        return None
    small = cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else rgb
    corners = np.stack([small[y, x] for y in (1, -2) for x in (1, -2)]).astype(np.int16)
    colour = np.median(corners, 0).astype(np.int16)
    if np.abs(corners - colour).max() > NEAR:
        return None
    other = (np.abs(small.astype(np.int16) - colour).max(2) > NEAR).astype(np.uint8)
    other = cv2.morphologyEx(other, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    spots = cv2.findNonZero(other)
    if spots is None:
        return None
    photo = _from_top_left(cv2.boxPoints(cv2.minAreaRect(spots)).astype(np.float64))
    across, down = photo[3] - photo[0], photo[1] - photo[0]
    width, height = np.hypot(*across), np.hypot(*down)
    if min(width, height) < LEAST or abs(np.degrees(np.arctan2(across[1], across[0]))) < TURNED:
        return None
    edge = np.array(small.shape[1::-1])
    gaps = np.abs(np.concatenate([photo.min(0), edge - 1 - photo.max(0)]))
    if gaps.max() > SNUG * edge.max() and min(_shares(other, photo)) < FULL:
        return None
    return (photo + 0.5) * (np.array(rgb.shape[1::-1]) / edge)


def straight(rgb: NDArray[np.uint8], photo: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The photo that `photo_in` found, cut out and straight; a square where it nearly is one.

    Its outermost pixels, which have something of the colour around it, are those inside them.
    """
    width, height = np.hypot(*(photo[3] - photo[0])), np.hypot(*(photo[1] - photo[0]))
    if abs(width - height) <= max(SQUARE * min(width, height), 2.5):
        width = height = (width + height) / 2
    size = (max(round(width), 1), max(round(height), 1))
    corners = np.array([[0, 0], [0, size[1]], size], np.float32)
    to_photo = cv2.getAffineTransform(photo[:3].astype(np.float32) - 0.5, corners - 0.5)
    cut = cv2.warpAffine(rgb, to_photo, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    mixed = BORDER * int(np.ceil(max(rgb.shape[:2]) / SIDE))
    inner = cut[mixed:-mixed, mixed:-mixed]
    return cv2.copyMakeBorder(inner, mixed, mixed, mixed, mixed, cv2.BORDER_REPLICATE)


def inside(photo: NDArray[np.float64]) -> NDArray[np.float64]:
    """The photo that `photo_in` found, a little smaller: without what has something of the colour around it."""
    return photo.mean(0) + (photo - photo.mean(0)) * (1 - 2 * EDGE)


def _shares(other: NDArray[np.uint8], photo: NDArray[np.float64]) -> list[float]:
    """The share, 0 to 1, of what differs from the colour along each of a photo's edges, a little inside."""
    inner = photo.mean(0) + (photo - photo.mean(0)) * (1 - 2 * INSIDE)
    limit = np.array(other.shape[::-1]) - 1
    shares = []
    for start, end in zip(inner, np.roll(inner, -1, 0), strict=True):
        x, y = (start + np.linspace(0.05, 0.95, 91)[:, None] * (end - start)).round().clip(0, limit).astype(int).T
        shares.append(float(other[y, x].mean()))
    return shares


def _from_top_left(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of a rectangle counterclockwise as seen, from that which is top left when it is turned least."""
    middle = corners.mean(0)
    corners = corners[np.argsort(-np.arctan2(*(corners - middle).T[::-1]))]
    for first in range(4):
        turned = np.roll(corners, -first, 0)
        x, y = turned[3] - turned[0]
        if x > 0 and -x <= y < x:
            return turned
    return corners
