"""FFHQ alignment (Karras et al. 2019, dataset recipe) from five points, as an oriented square of the source image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces.detector import Face

# The recipe uses dlib's 68 landmarks, but only needs the eyes' centres and the mouth's corners, which detectors of
# five points also give. EYES and MOUTH scale the square, DOWN moves its centre from the eyes towards the mouth.
EYES, MOUTH, DOWN = 2.0, 1.8, 0.1
# The mean positions of an aligned face's five points, as shares of the square.
POINTS = np.array([[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
                   [313.08905, 371.15118]], np.float32) / 512  # fmt: skip


def quad_of(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Corners of the FFHQ square: five points [5, 2] -> [4, 2], top left, bottom left, bottom right, top right.

    Raises: ValueError when the points coincide or are not finite, which leaves no orientation.
    """
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ValueError(f"alignment expects five finite points, got shape {list(points.shape)}")
    left, right, _, mouth_left, mouth_right = points.astype(np.float64)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, down = right - left, mouth - eyes
    x = across + np.array([down[1], -down[0]])
    length = np.hypot(*x)
    if length < 1e-6:
        raise ValueError("alignment points coincide")
    x *= max(np.hypot(*across) * EYES, np.hypot(*down) * MOUTH) / length
    y = np.array([-x[1], x[0]])
    centre = eyes + down * DOWN
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def quad_of_face(face: Face) -> NDArray[np.float64]:
    """`quad_of` of a face's points."""
    return quad_of(face.points)


def tilt(quad: NDArray[np.float64]) -> float:
    """Degrees, -180 to 180, by which a quad is turned clockwise."""
    x, y = quad[3] - quad[0]
    return float(np.degrees(np.arctan2(y, x)))


def centre_quad(width: int, height: int) -> NDArray[np.float64]:
    """The largest centred square of an image, as a quad: the crop of an image without a face."""
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return np.array([[x, y], [x, y + side], [x + side, y + side], [x + side, y]], np.float64)


def crop(rgb: NDArray[np.uint8], quad: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Cut a quad out of RGB [H, W, 3] u8 -> [size, size, 3] u8, mirroring what lies outside the image.

    Quad coordinates are pixel edges: (0, 0) is the outer corner of the first pixel. A quad larger than `size` is
    averaged down first, so that nothing aliases.
    """
    height, width = rgb.shape[:2]
    side = float(np.hypot(*(quad[3] - quad[0])))
    shrink = min(size / side, 1.0)
    if shrink < 1:
        small = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        rgb = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
        quad = quad * (np.array(small) / (width, height))
    corners = np.array([[0, 0], [0, size], [size, size]], np.float32)
    to_square = cv2.getAffineTransform(quad[:3].astype(np.float32) - 0.5, corners - 0.5)
    flags = cv2.INTER_CUBIC if side < size else cv2.INTER_LINEAR
    return cv2.warpAffine(rgb, to_square, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)


def coverage(quad: NDArray[np.float64], width: int, height: int, grid: int = 64) -> float:
    """The share, 0 to 1, of a quad that lies inside an image of this size."""
    steps = (np.arange(grid) + 0.5) / grid
    u, v = np.meshgrid(steps, steps)
    spots = quad[0] + u[..., None] * (quad[3] - quad[0]) + v[..., None] * (quad[1] - quad[0])
    inside = (spots >= 0).all(-1) & (spots[..., 0] <= width) & (spots[..., 1] <= height)
    return float(inside.mean())
