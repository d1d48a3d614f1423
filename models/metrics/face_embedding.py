"""ArcFace's MobileFaceNet (Deng et al. 2019; InsightFace's w600k_mbf) as a measure: do two portraits show one person?

It only measures: nothing in this project is trained or optimised on it, so that it stays a fair judge.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.faces import alignment

SIDE = 112
# InsightFace's template: where both eyes, the nose and the mouth's corners lie in the 112 px face the network reads.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
                     [70.7299, 92.2041]], np.float32)  # fmt: skip


class FaceEmbedding:
    """Unit codes of the faces in aligned portraits; strangers have a cosine of about 0, one person's images of 1.

    The face is cut by the average points of FFHQ's alignment, not by a detector, which stylised faces would confuse.
    Raises: ValueError when `model` is not the ONNX file of such a network.
    """

    def __init__(self, model: Path) -> None:
        try:
            self._net = cv2.dnn.readNetFromONNX(str(model))
        except cv2.error as error:
            raise ValueError(f"{model}: OpenCV cannot read this network ({str(error).splitlines()[0]})") from error

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Code [512] of an aligned portrait, RGB [S, S, 3] u8. Raises: ValueError for another form of image."""
        if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1] or image.dtype != np.uint8:
            raise ValueError(f"a portrait is RGB [S, S, 3] uint8, got {image.dtype} {image.shape}")
        to_face, _ = cv2.estimateAffinePartial2D(alignment.POINTS * len(image), TEMPLATE)
        face = cv2.warpAffine(image, to_face, (SIDE, SIDE))
        self._net.setInput(cv2.dnn.blobFromImage(face, 1 / 127.5, (SIDE, SIDE), (127.5,) * 3))
        code = self._net.forward()[0]
        return np.asarray(code / np.linalg.norm(code), np.float32)

    def similarity(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        """Cosine of two portraits' codes, -1 to 1."""
        return float(self(a) @ self(b))
