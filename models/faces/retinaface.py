"""RetinaFace (Deng et al. 2020), network by facexlib, behind this project's detector interface.

Both published files are recognised by their tensors: MobileNet 0.25 (`body.stage1…`) and ResNet-50 (`body.layer1…`).
"""

import warnings
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.faces.detector import TRACE, Face
from models.state_dicts import fill, needs_facexlib

MEAN = (104.0, 117.0, 123.0)  # of BGR in 0..255, subtracted before the network
STRIDES: Mapping[int, tuple[int, int]] = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # -> sides of its anchors
VARIANCES = (0.1, 0.2)  # of centres and of sizes
OVERLAP = 0.4


class RetinaFace:
    """Faces above `score`, from published tensors (a leading `module.` in their names is dropped).

    Larger images are resized to a longer side of `longest` px. Raises: ValueError naming tensors that do not fit.
    """

    # Measured with MobileNet 0.25 on 57 photos, art and paintings: of faces that lie, but are seen as if they stood,
    # the surest scores 0.9964; of glances in a wrong direction 0.9923. ResNet-50 was never measured.
    upright, settled = 0.997, 0.995

    def __init__(
        self, tensors: Mapping[str, Tensor], score: float = 0.9, device: str = "cpu", longest: int = 1280
    ) -> None:
        with needs_facexlib():
            from facexlib.detection.retinaface import RetinaFace as Network

        self.score, self.device, self.longest = score, device, longest
        state = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        small = any(name.startswith("body.stage1.") for name in state)
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # facexlib uses names that torchvision has renamed
            net = Network("mobile0.25" if small else "resnet50", device=torch.device("meta"))
        what = f"a RetinaFace on {'MobileNet 0.25' if small else 'ResNet-50'}"
        self.network: Any = fill(net, state, what).to(device)

    @torch.inference_mode()
    def raw(self, bgr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Box offsets [N, A, 4], scores [N, A, 2] of background and face, point offsets [N, A, 10]; `bgr` less MEAN."""
        offsets, scores, points = self.network(bgr)
        return offsets, scores, points

    def glance(self, rgb: NDArray[np.uint8], margin: float = 0) -> list[Face]:
        """Faces of a small image, best first; it needs no margin."""
        return self.detect(rgb)

    def detect(self, rgb: NDArray[np.uint8]) -> list[Face]:
        """Faces, best first; an empty list when there is none."""
        return self.scan(rgb)[0]

    @torch.inference_mode()
    def scan(self, rgb: NDArray[np.uint8]) -> tuple[list[Face], list[Face]]:
        """Faces, and all that may be faces, best first."""
        from torchvision.ops import nms

        height, width = rgb.shape[:2]
        shrink = min(1.0, self.longest / max(height, width))
        if shrink < 1:
            rgb = cv2.resize(rgb, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
        bgr = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1])).to(self.device).permute(2, 0, 1)[None]
        offsets, scores, points = self.raw(bgr - torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1))
        priors = anchors(*rgb.shape[:2]).to(self.device)
        boxes, spots, sure = decode_boxes(offsets, priors)[0], decode_points(points, priors)[0], scores[0, :, 1]
        size = torch.tensor([width, height], device=self.device)
        kept = sure > TRACE
        boxes, spots, sure = boxes[kept] * size.repeat(2), spots[kept] * size.repeat(5), sure[kept]
        traces = []
        for i in nms(boxes, sure, OVERLAP).tolist():  # in the order of their scores
            x0, y0, x1, y1 = boxes[i].tolist()
            traces.append(Face((x0, y0, x1 - x0, y1 - y0), spots[i].cpu().numpy().reshape(5, 2), float(sure[i])))
        return [face for face in traces if face.score > self.score], traces


def anchors(height: int, width: int) -> Tensor:
    """Centre and size of all anchors, as shares of the image: [A, 4], ordered by level, row, column, side."""
    parts = []
    for stride, sides in STRIDES.items():
        y = (torch.arange(-(-height // stride)) + 0.5) * stride / height
        x = (torch.arange(-(-width // stride)) + 0.5) * stride / width
        sizes = torch.tensor([(side / width, side / height) for side in sides])
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2).expand(-1, len(sides), -1)
        parts.append(torch.cat([centres, sizes.expand(len(centres), -1, -1)], 2).reshape(-1, 4))
    return torch.cat(parts)


def decode_boxes(offsets: Tensor, priors: Tensor) -> Tensor:
    """Corners x0, y0, x1, y1 as shares of the image: [N, A, 4]."""
    centres = priors[:, :2] + offsets[..., :2] * VARIANCES[0] * priors[:, 2:]
    halves = priors[:, 2:] * (offsets[..., 2:] * VARIANCES[1]).exp() / 2
    return torch.cat([centres - halves, centres + halves], -1)


def decode_points(offsets: Tensor, priors: Tensor) -> Tensor:
    """Five x, y as shares of the image: [N, A, 10]."""
    return priors[:, :2].repeat(1, 5) + offsets * VARIANCES[0] * priors[:, 2:].repeat(1, 5)
