"""Whether tensors are those of a network: built on the meta device by its own loader, nothing computed."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def structure(kind: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises: ValueError, one line, naming what is missing, unexpected or of another shape."""
    from models import aladin, aladin_vit, discriminators, e4e, hyperstyle, identity, retinaface, segmenters, stylegan2
    from models.farl_network import FaRL

    loaders: dict[str, Any] = {
        "stylegan2": stylegan2.StyleGAN2.load, "stylegan2-critic": discriminators.ImageDiscriminator.load,
        "e4e": e4e.Encoder4Editing.load, "psp": e4e.PSP.load, "w-encoder": e4e.WEncoder.load,
        "hyperstyle": hyperstyle.HyperStyle.load,
        "aladin-vit": aladin_vit.AladinViT.load, "aladin-vgg": aladin.Aladin.load,
        "bisenet": segmenters.BiSeNet.load, "parsenet": segmenters.ParseNet.load,
        "retinaface": retinaface.RetinaFace, "retinaface-mobilenet": retinaface.RetinaFace,
        "sae-patch": discriminators.PatchDiscriminator.load, "sae-image": discriminators.ImageDiscriminator.load,
        "farl": FaRL.load, "boundary": _boundary, "arcface": identity.Identity.load,
    }  # fmt: skip
    loaders[kind](tensors)


def _boundary(tensors: Mapping[str, Tensor]) -> None:
    direction = tensors["direction"]
    if direction.ndim != 2 or abs(float(direction.norm()) - 1) > 1e-3:
        raise ValueError(f"not a boundary: length {float(direction.norm()):.3f}; expected a direction of length 1")
