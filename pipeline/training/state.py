"""The state of a training between two calls of its command, kept in one file; and the optimiser step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.distributed import ProcessGroup

WAY_OUT = "name another folder with --run, or remove this one"


@dataclass
class State:
    """Networks and optimisers by the prefix of their tensors in the file `path`.

    `recipe` holds what makes the result wrong if it changes within a run: the generator, the seed, what the latents and
    codes were made with. `settings` may change between two calls: learning rates, or a data set that has grown; then
    `changed` says so, a line each. Both are JSON values, files by the sha256 of their content.
    `extra` holds other values to keep, as JSON values. `seconds` is the time that the run has taken.
    """

    path: Path
    nets: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    changed: tuple[str, ...] = ()

    def resume(self) -> bool:
        """Load the state from the file; return whether there is one.

        Raises: UserError(2) when the run was started with another recipe or other networks.
        """
        if not self.path.exists():
            return False
        tensors, meta = checkpoint.load(self.path)
        parts = {"recipe": dict, "settings": dict, "extra": dict, "step": int, "seconds": int | float}
        meta = {"settings": {}, "extra": {}} | meta
        if not all(isinstance(meta.get(name), kind) for name, kind in parts.items()):
            raise UserError(f"{self.path}: not the checkpoint of a training; move it elsewhere, or {WAY_OUT}", 2)
        refuse_difference(self.path, meta["recipe"], self.recipe)
        settings = differences(meta["settings"], self.settings)
        self.changed = tuple(f"{name} was {old!r}, is {new!r}" for name, old, new in settings)
        for prefix, net in self.nets.items():
            tensors_of_net = {n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")}
            try:
                net.load_state_dict(tensors_of_net)
            except RuntimeError as error:
                change = f" ({'; '.join(self.changed)})" if self.changed else ""
                text = f"{self.path}: its networks were made with other settings than this profile's{change}; {WAY_OUT}"
                raise UserError(text, 2) from error
        for prefix, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(optimiser, tensors, prefix)
        self.extra |= meta["extra"]
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


def refuse_difference(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare the recipe that the run's file `path` was started with and the present one.

    Raises: UserError(2) when a value differs; it names all of them.
    """
    differ = [f"{name} {was}, not {now}" for name, was, now in differences(old, new)]
    if differ:
        raise UserError(f"{path}: was started with {', with '.join(differ)}; {WAY_OUT}", 2)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The name, old value and new value of each setting that both have and that differs, sorted by name.

    A file of an earlier version may lack some.
    """
    plain = json.loads(json.dumps(dict(new)))
    return [(name, old[name], plain[name]) for name in sorted(old.keys() & plain) if old[name] != plain[name]]


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
