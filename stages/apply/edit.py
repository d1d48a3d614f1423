"""Semantic edits of a portrait: its latent moves along directions of W, and its region map follows.

Deltas are still predicted for the portrait as it was, as HyperStyle does: from the edited picture beside the photo the
hypernetwork would undo the edit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from models.generators.interface import Generator
from models.regions import UNKNOWN
from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from stages.loaders import directions as loader
from stages.portraits.portrait import Portrait

MOST = 5.0  # steps along a direction: beyond, faces fall apart


class Editor:
    """Edits portraits; `parse` gives the region map u8 [256, 256] of an aligned picture RGB u8 [S, S, 3].

    Raises: UserError when the profile's directions are missing (1) or of another generator (2).
    """

    def __init__(self, ctx: Context, generator: Generator, parse: Callable[[np.ndarray], np.ndarray]) -> None:
        self.ctx, self.generator, self.parse = ctx, generator, parse
        self.directions = loader.directions(ctx, generator)

    @torch.no_grad()
    def __call__(self, portrait: Portrait, edits: Mapping[str, float]) -> Portrait:
        """The portrait moved by so many steps along each direction, beside earlier edits."""
        base = portrait.base or portrait
        total = dict(portrait.edits)
        for name, steps in edits.items():
            total[name] = total.get(name, 0.0) + float(steps)
        total = {name: steps for name, steps in sorted(total.items()) if steps}
        if not total:
            return base
        moved = sum(steps * self.directions[name] for name, steps in total.items())
        latent = torch.from_numpy(base.latent).to(self.ctx.device) + moved
        picture = images.to_arrays(self.generator(latent[None]))[0]
        region = base.region if (base.region == UNKNOWN).all() else self.parse(picture)
        edited = dataclasses.replace(base, image=picture, region=region, latent=latent.cpu().numpy())
        return dataclasses.replace(edited, base=base, edits=tuple(total.items()))


def checked(ctx: Context, edits: Mapping[str, float]) -> dict[str, float]:
    """The edits that change something, by name.

    Raises: UserError(2) for values that are no number within +-MOST, and for directions that the profile lacks.
    """
    if not isinstance(edits, Mapping):
        raise UserError(f"edits are {edits!r}; expected steps by name, such as {{'age': 2}}", 2)
    there = loader.names(ctx)
    for name, steps in edits.items():
        number = isinstance(steps, int | float | np.number) and not isinstance(steps, bool)
        if not number or not math.isfinite(steps) or abs(steps) > MOST:
            raise UserError(f"{name} is {steps!r}; expected steps from {-MOST:g} to {MOST:g}, 0 for no change", 2)
        if steps and name not in there:
            known = ", ".join(there) or "none: make some by `hypernst directions`"
            raise UserError(f"{name}: profile {ctx.profile.name} has no such direction; it has {known}", 2)
    return {name: float(steps) for name, steps in sorted(edits.items()) if steps}
