"""Measure the profile's directions on inverted portraits: what each changes, what else it changes, who it still is."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.editing.attributes import ATTRIBUTES
from models.generators.latent_renderer import narrow_type
from models.generators.region_renderer import rows_of
from models.metrics.face_embedding import FaceEmbedding
from pipeline import images, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.progress import Progress
from stages.directions import scores
from stages.evaluate.control import spearman
from stages.loaders import directions as loader
from stages.loaders import generator as generators
from stages.portraits.portrait import cached

PORTRAITS = 100
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
MIDDLE = STEPS.index(0.0)

Floats = NDArray[np.float64]


def run(ctx: Context) -> int:
    """Print a JSON line per direction, over the first PORTRAITS (or --limit) content portraits in CACHE.

    Inversions are edited, without a style. Raises: UserError (2) when CACHE has no portraits or the profile no
    directions.
    """
    net = generators.generator(ctx)
    steps = loader.directions(ctx, net)
    if not steps:
        raise UserError(f"profile {ctx.profile.name} has no editing.directions; make some by `hypernst directions`", 2)
    scorer, person = scores.scorer(ctx), FaceEmbedding(weights.path("face-embedding"))
    render = rows_of(net, narrow_type(ctx.device)) or net
    seen: list[dict[str, Floats]] = []
    same: list[dict[str, Floats]] = []
    portraits = list(cached(ctx, "content", ctx.limit or PORTRAITS))
    progress = Progress("directions: portraits", len(portraits))

    def drawn(latent: Tensor) -> tuple[list[float], NDArray[np.float32]]:
        with torch.no_grad():
            image = images.to_arrays(render(latent))[0]
        found = scorer(image)
        return [found[name] for name in ATTRIBUTES] if found else [np.nan] * len(ATTRIBUTES), person(image)

    for portrait in portraits:
        latent = torch.from_numpy(portrait.latent)[None].to(ctx.device)
        plain, own = drawn(latent)
        rows: dict[str, Floats] = {}
        likeness: dict[str, Floats] = {}
        for name, direction in steps.items():
            edited = [drawn(latent + step * direction) if step else (plain, own) for step in STEPS]
            rows[name] = np.array([row for row, _ in edited])
            likeness[name] = np.array([float(code @ own) for _, code in edited])
        seen.append(rows)
        same.append(likeness)
        progress.add(1)
    progress.close()
    for name in steps:
        print(json.dumps({"direction": name} | summary(name, seen, same)))
    return 0


def summary(name: str, seen: Sequence[Mapping[str, Floats]], same: Sequence[Mapping[str, Floats]]) -> dict[str, object]:
    """The figures of a direction from `seen`, scores [steps, attributes] and cosines [steps] of each portrait.

    "moves" is by how many std (of the portraits as they are) each attribute moves from the first to the last step in
    the mean, and "moves, each" the mean of its absolute value.
    """
    table = np.stack([rows[name] for rows in seen])
    whole = ~np.isnan(table).any((1, 2))  # in each step a face was found
    table, likeness = table[whole], np.stack([rows[name] for rows in same])[whole]
    spread = table[:, MIDDLE].std(0)
    moved = (table[:, -1] - table[:, 0]) / np.where(spread > 0, spread, 1)
    figures: dict[str, object] = {"portraits": int(whole.sum()), "no face found": int((~whole).sum())}
    if name in ATTRIBUTES:
        own = table[:, :, ATTRIBUTES.index(name)]
        ranks = [spearman(STEPS, row) for row in own]
        figures |= {
            "spearman, mean": round(float(np.mean(ranks)), 3),
            "spearman, share of at least 0.9": round(float(np.mean(np.array(ranks) >= 0.9 - 1e-9)), 3),
            "scores": np.round(own.mean(0), 2).tolist(),
        }
    return figures | {
        "identity, median": np.round(np.median(likeness, 0), 3).tolist(),
        "moves": dict(zip(ATTRIBUTES, np.round(moved.mean(0), 2).tolist(), strict=True)),
        "moves, each": dict(zip(ATTRIBUTES, np.round(np.abs(moved).mean(0), 2).tolist(), strict=True)),
    }
