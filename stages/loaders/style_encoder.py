"""The profile's ALADIN: the only place that reads `aladin.kind`."""

from typing import TYPE_CHECKING

from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError

if TYPE_CHECKING:
    from models.encoders.aladin import Aladin
    from models.encoders.aladin_vit import AladinViT

    Encoder = Aladin | AladinViT


KINDS = ("imagenet", "vgg16", "vit")
TRUNK = "lpips-vgg"  # the weights whose VGG16 the "imagenet" kind computes its features with
VIT = 224  # px of an image that the ViT reads


def network(ctx: Context) -> "Encoder":
    """The profile's ALADIN: a head on LPIPS' trunk, a published file, or random weights for tests.

    Raises: UserError when there is no such kind (2), or the weights are of another network.
    """
    import torch

    from models.backbones.trunks import Trunk
    from models.encoders.aladin import Aladin
    from models.encoders.aladin_vit import AladinViT

    section = ctx.profile.aladin
    check_kind(ctx)
    if not section.weights:
        torch.manual_seed(ctx.profile.seed)
        return Aladin(size=section.input_size).to(ctx.device)
    tensors = weights.tensors(section.weights)
    try:
        if section.kind == "imagenet":
            head = Aladin(tensors, trunk=Trunk("vgg16", weights.tensors(TRUNK)), size=section.input_size)
            return head.to(ctx.device)
        if section.kind == "vgg16":
            return Aladin.load(tensors, size=section.input_size).to(ctx.device)
        return AladinViT.load(tensors).to(ctx.device)
    except ValueError as error:
        uses = f"profile {ctx.profile.name} uses them as aladin.kind {section.kind!r}"
        raise UserError(f"weights {section.weights}: {error}; {uses}") from error


def check_kind(ctx: Context) -> None:
    """Raises: UserError(2) when `aladin.kind` does not exist, or the sizes are none that it can read."""
    kind, sizes = ctx.profile.aladin.kind, (ctx.profile.aladin.input_size, ctx.profile.aladin.whole_size)
    if kind not in KINDS:
        raise UserError(f"profile {ctx.profile.name}: aladin.kind is {kind!r}; expected one of {', '.join(KINDS)}", 2)
    if kind == "vit" and sizes != (VIT, VIT):
        expected = f"input_size and whole_size of {VIT}, the size it was trained at"
        raise UserError(
            f"profile {ctx.profile.name}: aladin.kind 'vit' needs {expected}; got {sizes[0]} and {sizes[1]}", 2
        )
