"""Both discriminators: fresh ones of the profile's size, or imported ones."""

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from pipeline.context import Context
from pipeline.errors import UserError
from stages.loaders.load import load


def image_discriminator(ctx: Context) -> ImageDiscriminator:
    """Judges whole images of the profile's size. Raises: UserError(2) when the profile's weights judge another size."""
    settings, size = ctx.profile.train, ctx.profile.generator.size
    if not settings.image_discriminator:
        base = settings.image_discriminator_base
        return ImageDiscriminator(size, base=base, top=max(128, base // 64))
    net = load(settings.image_discriminator, ImageDiscriminator.load)
    _check("image_discriminator", settings.image_discriminator, net.size, size)
    return net.requires_grad_(True)


def patch_discriminator(ctx: Context) -> PatchDiscriminator:
    """Judges patches of the profile's size.

    Raises: UserError(2) when that is more than an image's, or the profile's weights judge another size.
    """
    settings, size = ctx.profile.train, ctx.profile.generator.size
    if settings.patch > size:
        raise UserError(f"train.patch is {settings.patch} px; expected {size} px, the generator's size, or less", 2)
    if not settings.patch_discriminator:
        return PatchDiscriminator(size=settings.patch, width=settings.patch_discriminator_width)
    net = load(settings.patch_discriminator, PatchDiscriminator.load)
    _check("patch_discriminator", settings.patch_discriminator, net.size, settings.patch)
    return net.requires_grad_(True)


def _check(key: str, name: str, size: int, wanted: int) -> None:
    if size != wanted:
        raise UserError(f"train.{key}: {name} judges images of {size} px; expected {wanted} px", 2)
