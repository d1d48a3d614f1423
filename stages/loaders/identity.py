"""The network of the identity loss."""

from models.metrics.identity import Identity
from pipeline.context import Context
from pipeline.errors import UserError
from stages.loaders.load import load


def identity(ctx: Context) -> Identity | None:
    """The identity loss's network; None where the profile gives the loss no weight.

    Raises: UserError(2) when the profile names no weights for it.
    """
    settings = ctx.profile.train
    if settings.identity and not settings.identity_weights:
        raise UserError(f"train.identity is {settings.identity}; name its network in train.identity_weights", 2)
    return load(settings.identity_weights, Identity.load).to(ctx.device) if settings.identity else None
