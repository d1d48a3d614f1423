"""Writes TorchScript archives as their authors export them: modules with the names of a state dict."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.parsing.farl_network import FaRL
from models.state_dicts import build


class Holder(nn.Module):
    """A module that holds tensors and modules; its output is its input."""

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x


def scripted(path: Path, state: dict[str, Tensor], **attributes: Any) -> Path:
    """Write a scripted network with the tensors of `state` and these attributes; return its path."""
    root = Holder()
    for name, tensor in state.items():
        *places, leaf = name.split(".")
        module = root
        for place in places:
            if not hasattr(module, place):
                module.add_module(place, Holder())
            module = getattr(module, place)
        module.register_buffer(leaf, tensor)
    for name, value in attributes.items():
        setattr(root, name, value)
    torch.jit.script(root).save(str(path))
    return path


def farl(classes: int) -> dict[str, Tensor]:
    """The tensors of FaRL's network without memory: each is one number, expanded."""
    state = build(FaRL, classes).state_dict()
    return {name: torch.full((), i % 7, dtype=t.dtype).expand(t.shape) for i, (name, t) in enumerate(state.items())}
