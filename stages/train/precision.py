"""The arithmetic of the networks in a training; its losses are taken in float32."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from pipeline import device
from pipeline.errors import UserError


def autocast(name: str, section: str, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Gives contexts for the device `name`: plain ones for "float32", else those in which networks use bfloat16.

    Raises: UserError(2), which names the profile's `section`, when the device does not compute in bfloat16.
    """
    if precision == "float32":
        return nullcontext
    if not device.has_bfloat16(name):
        raise UserError(f'{name} does not compute in bfloat16; set {section}.precision = "float32"', 2)
    return partial(torch.autocast, name.split(":")[0], torch.bfloat16)
