"""Checks that tensors fit a network. Its own loader builds it on the meta device, so nothing is computed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def structure(kind: str, tensors: Mapping[str, "Tensor"]) -> None:
    """Raises: ValueError when tensors are missing, unexpected or of another shape; one line that names them."""
    from models.backbones import inception
    from models.baselines import artflow, gatys, pama, sae, sanet, vgg19
    from models.discriminators import image, patch
    from models.encoders import aladin, aladin_vit, e4e
    from models.faces import retinaface
    from models.generators import stylegan2
    from models.hypernetworks import hyperstyle
    from models.metrics import identity
    from models.parsing import facexlib_parsers, farl_network

    loaders: dict[str, Any] = {
        "stylegan2": stylegan2.StyleGAN2.load, "stylegan2-discriminator": image.ImageDiscriminator.load,
        "e4e": e4e.Encoder4Editing.load, "psp": e4e.PSP.load, "w-encoder": e4e.WEncoder.load,
        "hyperstyle": hyperstyle.HyperStyle.load, "farl": farl_network.FaRL.load,
        "aladin-vit": aladin_vit.AladinViT.load, "aladin-vgg": aladin.Aladin.load,
        "bisenet": facexlib_parsers.BiSeNet.load, "parsenet": facexlib_parsers.ParseNet.load,
        "retinaface": retinaface.RetinaFace, "retinaface-mobilenet": retinaface.RetinaFace,
        "sae-patch": patch.PatchDiscriminator.load, "sae-image": image.ImageDiscriminator.load,
        "boundary": _boundary, "arcface": identity.Identity.load,
        "inception": inception.InceptionStem.load_imagenet, "resnet34": hyperstyle.Trunk.load_imagenet,
        "vgg19": gatys.Gatys.load, "vgg19-normalised": vgg19.Encoder.load, "vgg19-decoder": vgg19.Decoder.load,
        "sanet": sanet.Transformer.load, "pama": pama.Alignment.load, "artflow": artflow.ArtFlow.load,
        "sae": sae.SAE.load,
    }  # fmt: skip
    loaders[kind](tensors)


def sentence(error: ValueError) -> str:
    """A loader's complaint as a sentence about "this" file: "not a network: why" needs a subject."""
    return f"this is {error}" if str(error).startswith("not ") else str(error)


def _boundary(tensors: Mapping[str, "Tensor"]) -> None:
    direction = tensors["direction"]
    if direction.ndim != 2 or abs(float(direction.norm()) - 1) > 1e-3:
        raise ValueError(f"not a boundary: length {float(direction.norm()):.3f}; expected a direction of length 1")
