"""How weights become a network: errors name the weights, untrained networks follow the profile's seed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from pipeline import weights
from pipeline.context import Context
from pipeline.errors import Fault

Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=torch.nn.Module)


def drawn(ctx: Context, build: Callable[[], Network]) -> Network:
    """A frozen network with weights drawn from the profile's seed: what tests take where a profile names none."""
    with torch.random.fork_rng([]):
        torch.manual_seed(ctx.profile.seed)
        return build().requires_grad_(False).eval()


def load(name: str, loader: Callable[[dict[str, Tensor]], Loaded]) -> Loaded:
    """Load registered weights; what does not fit is told with the weights' name."""
    try:
        return loader(weights.tensors(name))
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:500]
        raise Fault(f"{name}: {said}; name other weights in the profile") from error
