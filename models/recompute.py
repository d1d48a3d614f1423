"""Activations computed again in the backward pass, and arithmetic at full precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def run(function: Callable[..., Result], *inputs: object, again: bool) -> Result:
    """Call `function`, computing it `again` in the backward pass instead of keeping its activations.

    It must draw nothing at random: the second time would not draw the same.
    """
    if again and torch.is_grad_enabled():
        found: Result = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
        return found
    return function(*inputs)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast on the device of x, where it has one."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
