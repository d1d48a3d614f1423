"""How weights become a network. Errors name the weights; untrained networks follow from the profile's seed."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError

Choice = TypeVar("Choice")
Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=torch.nn.Module)


def of_kind(ctx: Context, choices: Mapping[str, Choice], what: str) -> Choice:
    """The entry of `choices` for the profile's kind of generator; `what` is the name of what needs it.

    Raises: UserError(2) when there is none; it names the kinds that have one.
    """
    kind = ctx.profile.generator.kind
    if kind not in choices:
        known = " or ".join(choices)
        raise UserError(f"profile {ctx.profile.name}: generator.kind is {kind!r}, but {what} works with {known}", 2)
    return choices[kind]


def drawn(ctx: Context, build: Callable[[], Network]) -> Network:
    """A frozen network with random weights from the profile's seed; tests use it where a profile names no weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(ctx.profile.seed)
        return build().requires_grad_(False).eval()


def load(name: str, loader: Callable[[dict[str, Tensor]], Loaded]) -> Loaded:
    """A network from registered weights. Raises: UserError when they do not fit it; it names the weights."""
    try:
        return loader(weights.tensors(name))
    except (KeyError, ValueError, RuntimeError) as error:
        missing = isinstance(error, KeyError)
        problem = f"no tensor {error} is in it" if missing else " ".join(str(error).split())[:500]
        raise UserError(f"{name}: {problem}; name other weights in the profile") from error
