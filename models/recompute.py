"""Recomputes activations in the backward pass; switches to arithmetic at full precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def run(function: Callable[..., Result], *inputs: object, again: bool) -> Result:
    """Call `function`; with `again`, recompute it in the backward pass instead of keeping its activations.

    It must not use random numbers: the second call would get others.
    """
    if again and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return function(*inputs)


def full_precision(x: Tensor, when: bool = True) -> AbstractContextManager[object]:
    """A context without autocast on the device of x; with `when` False it changes nothing."""
    kind = x.device.type
    switch = when and torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if switch else nullcontext()
