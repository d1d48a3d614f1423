"""Find semantic directions: boundaries between the generated faces that score highest and lowest (InterFaceGAN)."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.editing import boundary
from models.editing.boundary import Boundary
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.training import checkpoint
from stages.directions import scores
from stages.loaders import generator as generators
from stages.loaders.directions import TRUNCATION, mapping_digest

FACES = 3000
OUTPUT = Path("weights/portable/directions.safetensors")
SHARE = 0.2  # of the faces at each end, which a boundary is fitted to
COSTS = (1.0, 0.1, 0.01, 0.001, 0.0001)  # C of the machine: the best on held-out faces is taken
HELD_OUT = 0.2  # share of the faces that choose C, and again that the result is measured on

Floats = NDArray[np.float64]


def run(ctx: Context, *, images: int = FACES, output: Path = OUTPUT) -> int:
    """Score `images` generated faces, fit a boundary per attribute, make each independent of the others, and save them.

    Scores are kept in CACHE/directions, and computed only where they are missing or stale.
    Raises: UserError when no attribute varies, or a network cannot be had.
    """
    latents, scored = scores.read(ctx, images)
    found: dict[str, Boundary] = {}
    told: dict[str, dict[str, Any]] = {}
    for name, values in scored.items():
        try:
            found[name], told[name] = fitted(latents, values)
        except ValueError as error:
            say(f"directions: {name} is left out: {error}")
    if not found:
        raise UserError(f"directions: {len(latents)} faces are too few, or no attribute varies; make more: --images")
    directions = independent({name: each.direction for name, each in found.items()})
    raw = cosines({name: each.direction for name, each in found.items()})
    meta = {
        "what": "semantic directions of W, a unit vector each",
        "generator": ctx.profile.generator.weights,
        "mapping": mapping_digest(generators.generator(ctx)),  # type: ignore[arg-type]
        "faces": len(latents),
        "seed": ctx.profile.seed,
        "truncation": TRUNCATION,
        "share": SHARE,
        "scorers": {name: weights.sha256(name) for name in scores.NETWORKS},
        "spread": {name: float(np.std(scored[name])) for name in found},
        "boundaries": told,
        "cosines": raw,
        "command": f"hypernst directions --images {images}",
    }
    checkpoint.save(output, {name: torch.from_numpy(d[0]).float() for name, d in directions.items()}, meta)
    for name, figures in told.items():
        print(f"{name}: " + ", ".join(f"{figure} {value:g}" for figure, value in figures.items()))
    print("cosines before each was made independent: " + ", ".join(f"{k} {v:.2f}" for k, v in raw.items()))
    print(output)
    return 0


def fitted(latents: NDArray[np.floating], values: NDArray[np.floating]) -> tuple[Boundary, dict[str, float]]:
    """The boundary of an attribute's scores [N] in latents [N, 512], and how it does on faces that it has not seen.

    The last HELD_OUT of the faces only measure it; those before choose the machine's C by correlation.
    Raises: ValueError when there are too few faces or all score alike.
    """
    if not len(values) or np.ptp(values) == 0:
        raise ValueError("all faces have the same score")
    test = round(len(values) * (1 - HELD_OUT))
    choose = round(test * (1 - HELD_OUT))

    def correlation(cost: float) -> float:
        direction = boundary.fit(latents[:choose], values[:choose], SHARE, cost).direction[0]
        return float(np.corrcoef(latents[choose:test] @ direction, values[choose:test])[0, 1])

    cost = max(COSTS, key=correlation)
    found = boundary.fit(latents[:test], values[:test], SHARE, cost)
    held, truth = latents[test:] @ found.direction[0], values[test:]
    ends = boundary.extremes(truth, SHARE)
    right = (held[ends] + found.offset > 0) == (np.arange(len(ends)) < len(ends) // 2)
    figures = {
        "C": cost,
        "support vectors": float(found.supports),
        "training accuracy": found.accuracy,
        "held-out accuracy": float(right.mean()),
        "held-out r": float(np.corrcoef(held, truth)[0, 1]),
    }
    return found, {name: round(value, 4) for name, value in figures.items()}


def independent(directions: dict[str, Floats]) -> dict[str, Floats]:
    """Each direction [1, 512] without its components along all the others, of length 1 (conditional projection)."""
    return {
        name: boundary.project(direction, *(other for label, other in directions.items() if label != name))
        for name, direction in directions.items()
    }


def cosines(directions: dict[str, Floats]) -> dict[str, float]:
    """Of each pair of directions."""
    pairs = itertools.combinations(directions, 2)
    return {f"{a}-{b}": round(float((directions[a] @ directions[b].T).item()), 4) for a, b in pairs}
