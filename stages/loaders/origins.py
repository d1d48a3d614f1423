"""What the profile's networks are made of, by the content of their files; nothing is loaded, and torch is not needed.

Recipes of caches and of trainings hold it. So a file under another name is the same one, and the seed is in a recipe
only where it decides something: where weights are drawn, or a file leaves something out that is drawn in its place.
"""

from typing import Any

from pipeline import weights
from pipeline.context import Context


def generator(ctx: Context) -> dict[str, Any]:
    """What decides the generator's images: the sha256 of its files, its kind, its size, and the seed where it does."""
    settings = ctx.profile.generator
    files = {"generator": settings.weights, "generator.head": settings.head}
    made: dict[str, Any] = {name: weights.sha256(file) if file else "" for name, file in files.items()}
    made |= {"generator.kind": settings.kind, "generator.size": settings.size}
    return made | ({"generator.seed": ctx.profile.seed} if is_seeded(ctx) else {})


def is_seeded(ctx: Context) -> bool:
    """Whether the seed decides the generator: it has no weights, or is a StyleGAN2 without noise maps."""
    name = ctx.profile.generator.weights
    return not name or (
        ctx.profile.generator.kind == "stylegan2" and not any(n.startswith("noises.") for n in weights.names(name))
    )


def inversion_is_seeded(ctx: Context) -> bool:
    """Whether the seed decides latents: it draws the generator, the encoder, or the mean that the encoder starts from.

    A published encoder without an average latent takes the generator's, or the mean of latents that are drawn.
    """
    files = [ctx.profile.inverter.weights, ctx.profile.generator.weights]
    if not files[0] or is_seeded(ctx):
        return True
    return ctx.profile.generator.kind == "stylegan2" and not any("latent_avg" in weights.names(f) for f in files)


def identity(ctx: Context) -> dict[str, Any]:
    """The identity loss: its weight, and the sha256 of its network; "" where the weight is 0."""
    settings = ctx.profile.train
    used = settings.identity and settings.identity_weights
    return {
        "identity": settings.identity,
        "identity_weights": weights.sha256(settings.identity_weights) if used else "",
    }
