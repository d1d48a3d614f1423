"""The kinds of networks that a weights file may hold, and what their tensors are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

NAMES = {
    "stylegan2": "StyleGAN2 generator", "stylegan2-discriminator": "StyleGAN2 discriminator", "e4e": "e4e encoder",
    "psp": "pSp encoder", "w-encoder": "W-encoder", "hyperstyle": "HyperStyle hypernetwork",
    "farl": "FaRL face parser", "aladin-vit": "ALADIN on ViT", "aladin-vgg": "ALADIN on VGG16",
    "bisenet": "BiSeNet face parser", "parsenet": "ParseNet face parser", "retinaface": "RetinaFace-R50",
    "retinaface-mobilenet": "RetinaFace-MobileNet0.25", "sae-patch": "Swapping Autoencoder patch discriminator",
    "sae-image": "Swapping Autoencoder image discriminator", "boundary": "semantic boundary",
    "arcface": "ArcFace IR-SE50 face recogniser", "inception": "torchvision InceptionV3",
    "resnet34": "torchvision ResNet34", "vgg19": "VGG19 of Simonyan, for Caffe", "vgg19-normalised": "normalised VGG19",
    "vgg19-decoder": "decoder of VGG19 features", "sanet": "style-attentional transformer (SANet or ContraAST)",
    "pama": "alignment module of PAMA", "artflow": "ArtFlow flow", "sae": "Swapping Autoencoder",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One network of a file: its kind, its tensors in the published layout without prefix, what follows from them."""

    kind: str
    tensors: "Tensors"
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return NAMES[self.kind] + (f" ({facts})" if facts else "")


def article(name: object) -> str:
    """The name with "a" or "an" in front."""
    return f"{'an' if str(name)[0] in 'aeioAEIO' else 'a'} {name}"


# How the tensors of files without a root are called: the first prefix that occurs tells the kind.
FLAT: tuple[tuple[str, str], ...] = (
    ("enc_style.transformer.", "aladin-vit"), ("enc_style.model.conv_", "aladin-vgg"), ("cp.resnet.", "bisenet"),
    ("out_mask_conv.", "parsenet"), ("body.stage1.", "retinaface-mobilenet"), ("body.layer1.", "retinaface"),
    ("sanet4_1.", "sanet"), ("attn.f.", "pama"), ("conv1_1.", "vgg19"), ("28.", "vgg19-decoder"),
    ("29.", "vgg19-normalised"), ("output_layer.3.", "arcface"), ("Conv2d_1a_3x3.", "inception"),
    ("layer1.2.", "resnet34"),
)  # fmt: skip
