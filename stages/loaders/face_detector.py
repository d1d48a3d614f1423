"""The profile's face detector: the only place that reads `align.detector`."""

from typing import TYPE_CHECKING

from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError

if TYPE_CHECKING:
    from models.faces.detector import FaceDetector


def open_detector(ctx: Context) -> "FaceDetector":
    """The profile's face detector. Raises: UserError when there is no such detector, or its weights are missing."""
    from models.faces.detector import NoDetector, YuNet
    from models.faces.retinaface import RetinaFace

    name = ctx.profile.align.detector
    if name == "none":
        return NoDetector()
    if name == "yunet":
        return YuNet(weights.path(name))
    if name in ("retinaface", "retinaface-mobilenet"):
        try:
            return RetinaFace(weights.tensors(name), device=ctx.device)
        except ValueError as error:
            raise UserError(f"weights {name}: {error}") from error
    known = "'yunet', 'retinaface', 'retinaface-mobilenet' or 'none'"
    raise UserError(f"profile {ctx.profile.name}: align.detector is {name!r}; expected {known}", 2)
