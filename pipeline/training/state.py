"""All that a training has to remember between two calls of its command, in one file; and how it takes a step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import Fault
from pipeline.training import checkpoint
from pipeline.training.distributed import Team


@dataclass
class State:
    """Networks and optimisers by the prefix of their tensors in the file `path`.

    `recipe` is what the run was started with: another one cannot go on with it.
    """

    path: Path
    nets: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0

    def resume(self) -> bool:
        """Take the file's state over, if there is one. Raises: Fault when the run was started with something else."""
        if not self.path.exists():
            return False
        tensors, meta = checkpoint.load(self.path)
        recipe = dict(self.recipe)
        if differ := sorted(name for name in recipe | meta["recipe"] if recipe.get(name) != meta["recipe"].get(name)):
            name = differ[0]
            raise Fault(
                f"{self.path}: was started with {name} {meta['recipe'].get(name)}, not {recipe.get(name)}; "
                "name another folder with --run, or remove this one",
                2,
            )
        for prefix, net in self.nets.items():
            own = {n.removeprefix(f"{prefix}."): t for n, t in tensors.items() if n.startswith(f"{prefix}.")}
            net.load_state_dict(own)
        for prefix, optimiser in self.optimisers.items():
            checkpoint.restore_optimiser(optimiser, tensors, prefix)
        self.step, self.seconds = meta["step"], meta["seconds"]
        return True

    def save(self, step: int, seconds: float = 0.0) -> None:
        """Write the file, whole or not at all."""
        self.step, self.seconds = step, seconds
        tensors = {f"{prefix}.{n}": t for prefix, net in self.nets.items() for n, t in net.state_dict().items()}
        for prefix, optimiser in self.optimisers.items():
            tensors |= checkpoint.optimiser_tensors(optimiser, prefix)
        meta = {"step": step, "seconds": round(seconds, 1), "recipe": dict(self.recipe)}
        checkpoint.save(self.path, tensors, meta)


def advance(optimiser: torch.optim.Optimizer, team: Team, *, rate: float | None = None, clip: float = 1e9) -> str:
    """Take a step by the gradients of all processes together, at `rate`, their norm cut to `clip`; then clear them.

    Gradients that are not finite change nothing and are told, for `Loop.count`; "" where all is well.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    team.add(p.grad for p in parameters if p.grad is not None)
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    bad = "" if norm.isfinite() else f"a gradient's norm is {float(norm)}"
    if not bad:
        for group in optimiser.param_groups if rate is not None else ():
            group["lr"] = rate
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return bad
