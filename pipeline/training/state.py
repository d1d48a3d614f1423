"""All that a training has to remember between two calls of its command, in one file; and how it takes a step."""

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

    `recipe` is what the run was started with: another one cannot resume it. `settings` may change between two calls:
    `changed` then says how they did. `extra` holds what else has to be remembered, as JSON values.
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
        """Take over the file's state, if there is one. Raises: UserError(2) when the run was started otherwise."""
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
            own = {n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")}
            try:
                net.load_state_dict(own)
            except RuntimeError as error:
                told = f" ({self.changed})" if self.changed else ""
                text = f"{self.path}: its networks were made with other settings than this profile's{told}; {way_out}"
                raise UserError(text, 2) from error
        for prefix, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(optimiser, tensors, prefix)
        self.extra |= meta.get("extra", {})
        self.step, self.seconds = meta["step"], meta["seconds"]
        return True

    def save(self, step: int, seconds: float = 0.0) -> None:
        """Write the file, whole or not at all."""
        self.step, self.seconds = step, seconds
        tensors = {f"{prefix}.{n}": t for prefix, net in self.nets.items() for n, t in net.state_dict().items()}
        for prefix, optimiser in self.optimisers.items():
            tensors |= checkpoint.optimiser_tensors(optimiser, prefix)
        meta = {"step": step, "seconds": round(seconds, 1), "recipe": dict(self.recipe)}
        meta |= {"settings": dict(self.settings), "extra": self.extra}
        checkpoint.save(self.path, tensors, meta)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, old and new value of what differs, by name."""
    return [(name, old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def advance(
    optimiser: torch.optim.Optimizer,
    process_group: ProcessGroup,
    *,
    rate: float | None = None,
    clip: float = 1e9,
) -> str:
    """Take a step by the gradients of all processes together, at `rate`, their norm cut to `clip`; then clear them.

    Gradients that are not finite change nothing and are told, for `Loop.count`; "" where all is well.
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
