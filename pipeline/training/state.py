"""The state of a training between two calls of its command, kept in one file; and the optimiser step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.distributed import ProcessGroup


@dataclass
class State:
    """Networks and optimisers by the prefix of their tensors in the file `path`.

    `recipe` holds the settings that must stay the same to resume. `settings` may change between two calls; `changed`
    then says how. `extra` holds other values to keep, as JSON values. `seconds` is the time that the run has taken.
    """

    path: Path
    nets: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    changed: str = ""

    def resume(self) -> bool:
        """Load the state from the file; return whether there is one.

        Raises: UserError(2) when the run was started with another recipe or other networks.
        """
        if not self.path.exists():
            return False
        tensors, meta = checkpoint.load(self.path)
        way_out = "name another folder with --run, or remove this one"
        if differ := _differences(meta["recipe"], self.recipe):
            name, old, new = differ[0]
            raise UserError(f"{self.path}: was started with {name} {old}, not {new}; {way_out}", 2)
        settings = [d for d in _differences(meta.get("settings", {}), self.settings) if d[0] in self.settings]
        self.changed = "; ".join(f"{name} was {old!r}, is {new!r}" for name, old, new in settings)
        for prefix, net in self.nets.items():
            tensors_of_net = {n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")}
            try:
                net.load_state_dict(tensors_of_net)
            except RuntimeError as error:
                change = f" ({self.changed})" if self.changed else ""
                text = f"{self.path}: its networks were made with other settings than this profile's{change}; {way_out}"
                raise UserError(text, 2) from error
        for prefix, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(optimiser, tensors, prefix)
        self.extra |= meta.get("extra", {})
        self.step, self.seconds = meta["step"], meta["seconds"]
        return True

    def save(self, step: int, seconds: float = 0.0) -> None:
        """Write the file, whole or not at all; `seconds` is the time of the run so far.

        Raises: UserError as `checkpoint.save`.
        """
        checkpoint.save(self.path, *self.content(step, seconds))

    def content(self, step: int, seconds: float) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The tensors, as they are in use, and the meta to be written; `seconds` is the time of the run so far."""
        self.step, self.seconds = step, seconds
        tensors = {f"{prefix}.{n}": t for prefix, net in self.nets.items() for n, t in net.state_dict().items()}
        for prefix, optimiser in self.optimisers.items():
            tensors |= checkpoint.optimiser_tensors(optimiser, prefix)
        meta = {"step": step, "seconds": round(seconds, 1), "recipe": dict(self.recipe)}
        meta |= {"settings": dict(self.settings), "extra": self.extra}
        return tensors, meta


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The name, old value and new value of each setting that differs, sorted by name."""
    return [(name, old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def advance(
    optimiser: torch.optim.Optimizer,
    process_group: ProcessGroup,
    *,
    rate: float | None = None,
    clip: float = 1e9,
) -> str:
    """Sum the gradients over all processes, take an optimiser step, and clear them.

    The norm of the gradients is clipped to `clip`; `rate` is the new learning rate, None keeps the old one.
    Gradients that are not finite change nothing: then the result says so, for `Loop.count`. Otherwise it is "".
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    process_group.all_reduce_(p.grad for p in parameters if p.grad is not None)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    bad = "" if norm.isfinite() else f"a gradient's norm is {float(norm)}"
    if not bad:
        for group in optimiser.param_groups if rate is not None else ():
            group["lr"] = rate
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return bad
