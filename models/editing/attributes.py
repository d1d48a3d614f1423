"""Attributes of aligned portraits as numbers, by small published networks and the detector's five points.

Semantic directions are trained on these scores and measured by them. Nothing else is.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.editing import expression
from models.editing.expression import ExpressionNet
from models.faces import alignment
from models.faces.detector import MARGIN, FaceDetector, NoDetector, largest
from models.parsing.teacher import start_from

# What grows with a score: years; the logit of "happy"; the nose towards the image's left, as the published direction
# has it; the log-odds of "male"; and the logarithm of the share of the image that is glasses.
ATTRIBUTES = ("age", "smile", "pose", "gender", "glasses")
MEAN = (122.782, 117.001, 104.298)  # RGB that all three networks subtract
AGES = np.array([0.25, *range(1, 81)])
AGE_SIDE, GENDER_SIDE = 64, 32
EYES = (0.3052, 0.6805), 0.3010  # where dlib's chip has the eyes' centres: both x, and y, in its sides
GLASSES = 6  # the parser's class
LEAST = 1e-3  # of a probability before its logarithm is taken: networks are sure to any number of digits


class AttributeScorer:
    """Scores portraits that are aligned as FFHQ's. Without a detector the face's points are the average ones.

    `age` and `gender` are ONNX files of dlib's networks, `expression` and `parser` the tensors of face-api's and
    BiSeNetV2. Raises: ValueError when one of them is of another network.
    """

    def __init__(
        self,
        detector: FaceDetector,
        age: Path,
        gender: Path,
        expression: Mapping[str, Tensor],
        parser: Mapping[str, Tensor],
    ) -> None:
        self.detector = detector
        try:
            self._age, self._gender = (cv2.dnn.readNetFromONNX(str(path)) for path in (age, gender))
        except cv2.error as error:
            raise ValueError(f"{age} or {gender}: OpenCV cannot read it ({str(error).splitlines()[0]})") from error
        self._expression, self._parser = ExpressionNet.load(expression), start_from(parser, 256).requires_grad_(False)

    def __call__(self, rgb: NDArray[np.uint8]) -> dict[str, float] | None:
        """The ATTRIBUTES of a portrait RGB [S, S, 3] u8; None when no face is found in it."""
        points = self.points(rgb)
        if points is None:
            return None
        ages = _forward(self._age, _chip(rgb, points, AGE_SIDE))
        female, male = np.maximum(_forward(self._gender, _chip(rgb, points, GENDER_SIDE)), LEAST)
        return {
            "age": float(ages @ AGES),
            "smile": float(self.expressions(rgb, points)[expression.EXPRESSIONS.index("happy")]),
            "pose": pose(points),
            "gender": float(np.log(male / female)),
            "glasses": self._glasses(rgb),
        }

    def points(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """The five points [5, 2] of the largest face, in pixels."""
        if isinstance(self.detector, NoDetector):
            return np.asarray(alignment.POINTS * len(rgb), np.float32)
        faces = self.detector.glance(rgb, MARGIN)
        return largest(faces).points if faces else None

    @torch.no_grad()
    def expressions(self, rgb: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float32]:
        """face-api's logits [7] of the face with these points."""
        eyes, mouth = points[:2], points[3:].mean(0)
        side = float(np.linalg.norm(eyes - mouth, axis=1).mean()) / 0.45
        x, y = np.stack([*eyes, mouth]).mean(0) - side * np.array([0.5, 0.43])
        quad = np.array([[x, y], [x, y + side], [x + side, y + side], [x + side, y]])
        face = alignment.crop(rgb, quad, expression.SIDE)
        pixels = (torch.from_numpy(face).float() - torch.tensor(MEAN)) / 255
        return self._expression(pixels.permute(2, 0, 1)[None])[0].numpy()

    @torch.no_grad()
    def _glasses(self, rgb: NDArray[np.uint8]) -> float:
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
        if x.shape[-1] != 256:
            x = F.interpolate(x, (256, 256), mode="bilinear", antialias=True)
        share = self._parser.classes(x).softmax(1)[0, GLASSES].mean()
        return float(torch.log(share + LEAST))


def pose(points: NDArray[np.float32]) -> float:
    """Where the nose of five points [5, 2] lies between the eyes: 1 at the image's left one, -1 at the other."""
    left, right, nose = points[:3].astype(np.float64)
    across = right - left
    return float(1 - 2 * (nose - left) @ across / (across @ across))


def _chip(rgb: NDArray[np.uint8], points: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """The face as dlib cuts it: its eyes lie at EYES of the square."""
    left, right = points[:2].astype(np.float64)
    (x_left, x_right), y_eyes = EYES
    x = (right - left) / (x_right - x_left)
    y = np.array([-x[1], x[0]])
    corner = left - x_left * x - y_eyes * y
    return alignment.crop(rgb, np.stack([corner, corner + y, corner + x + y, corner + x]), side)


def _forward(net: cv2.dnn.Net, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
    net.setInput(cv2.dnn.blobFromImage(chip, 1 / 256, mean=MEAN))
    return net.forward()[0]
