"""Faces and their five points, by YuNet through OpenCV; `models.faces.retinaface` is another detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

FAINT_SIZE = 0.2
TRACE = 0.1  # the least score of what may be a face
MARGIN = 1 / 8  # room around an image in which faces are looked for, in its longer sides


@dataclass(frozen=True)
class Face:
    """One face, in pixels of its image.

    box: x, y, width, height. points [5, 2]: the eye on the image's left, the other eye, nose tip, the mouth corner on
    the left, the other corner. score in [0, 1].
    """

    box: tuple[float, float, float, float]
    points: NDArray[np.float32]
    score: float

    @property
    def area(self) -> float:
        """Pixels in the box."""
        return self.box[2] * self.box[3]


class FaceDetector(Protocol):
    """Anything that finds faces in RGB [H, W, 3] u8, best first.

    A face of a score of at least `upright`, whose points stand upright, is never one that lies on its side or upside
    down; a glance of at least `settled` needs no others (measured by `bench/faces/turns.py`).
    """

    score: float
    upright: float
    settled: float

    def glance(self, rgb: NDArray[np.uint8], margin: float = 0) -> list[Face]:
        """Faces of a small RGB [H, W, 3] u8 at its own size, best first: one pass of the network.

        `margin` is the room around it, in its longer sides, for a detector that finds faces at the border less well.
        """

    def scan(self, rgb: NDArray[np.uint8]) -> tuple[list[Face], list[Face]]:
        """Faces of RGB [H, W, 3] u8, and all that may be faces, however faintly; both best first."""

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """The faces of `scan`."""


class NoDetector:
    """Never finds a face: for collections whose images are cut at the centre."""

    score = upright = settled = 1.0

    def glance(self, rgb: NDArray[np.uint8], margin: float = 0) -> list[Face]:
        """An empty list."""
        return []

    def scan(self, rgb: NDArray[np.uint8]) -> tuple[list[Face], list[Face]]:
        """Two empty lists."""
        return [], []

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """An empty list."""
        return []


class YuNet:
    """OpenCV's YuNet. It sees faces of about 10 to 300 px, so the image is tried at several sizes.

    `sides` are the longer sides tried in turn; the faces of the first size with one above `score` are
    returned. Painted faces may score low: without a face above `score` the best one above `faint` is returned, if it is
    large (at least FAINT_SIZE of the image's shorter side), where false detections are rare.
    """

    upright, settled = 0.925, 0.88

    def __init__(
        self, model: Path, score: float = 0.8, faint: float = 0.6, sides: Sequence[int] = (640, 320, 1280)
    ) -> None:
        if not 0 < faint <= score < 1:
            raise ValueError(f"YuNet thresholds must satisfy 0 < faint <= score < 1, got {faint} and {score}")
        self.score, self.faint, self.sides = score, faint, tuple(sides)
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns about one of its defaults
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (320, 320), TRACE, 0.3, 500)
        finally:
            cv2.utils.logging.setLogLevel(level)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces, best first; an empty list when there is none."""
        return self.scan(rgb)[0]

    def scan(self, rgb: NDArray[np.uint8]) -> tuple[list[Face], list[Face]]:
        """Faces, and all that may be faces, best first."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"detector expects RGB [H, W, 3] uint8, got {rgb.dtype} {list(rgb.shape)}")
        longest = max(rgb.shape[:2])
        traces: list[Face] = []
        tried: set[int] = set()
        for side in self.sides:
            side = min(side, max(longest, 320))  # enlarging beyond the image shows the network nothing new
            if side in tried:
                continue
            tried.add(side)
            seen = self._detect_at(rgb, side / longest)
            traces = sorted(traces + seen, key=lambda face: -face.score)
            if sure := [face for face in seen if face.score >= self.score]:
                return sure, traces
        wide = FAINT_SIZE * min(rgb.shape[:2])
        return [face for face in traces if face.score > self.faint and face.box[2] >= wide][:1], traces

    def glance(self, rgb: NDArray[np.uint8], margin: float = 0) -> list[Face]:
        """Faces of a small image at its own size, best first, faint ones as well."""
        return [face for face in self._detect_at(rgb, 1.0, margin) if face.score > self.faint]

    def _detect_at(self, rgb: NDArray[np.uint8], scale: float, margin: float = MARGIN) -> list[Face]:
        height, width = rgb.shape[:2]
        small = rgb
        if scale != 1:
            size = (max(round(width * scale), 16), max(round(height * scale), 16))
            small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        # faces at the border are detected more reliably with a margin around the image
        pad = int(max(small.shape[:2]) * margin)
        bgr = cv2.copyMakeBorder(small[:, :, ::-1], pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        self._net.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = self._net.detect(bgr)
        ratio = np.array([width / small.shape[1], height / small.shape[0]], np.float32)
        faces = []
        for row in np.zeros((0, 15), np.float32) if rows is None else rows:
            x, y = (row[:2] - pad) * ratio
            w, h = row[2:4] * ratio
            points = ((row[4:14].reshape(5, 2) - pad) * ratio).astype(np.float32)
            faces.append(Face((float(x), float(y), float(w), float(h)), points, float(row[14])))
        return sorted(faces, key=lambda face: -face.score)


def largest(faces: Sequence[Face]) -> Face:
    """The face with the largest box. Raises: ValueError when there is none."""
    if not faces:
        raise ValueError("no face to choose from")
    return max(faces, key=lambda face: face.area)
