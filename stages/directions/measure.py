"""Measure the profile's directions on inverted portraits: what each changes, what else it changes, who it still is."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.editing.attributes import ATTRIBUTES
from models.generators.latent_renderer import narrow_type
from models.generators.region_renderer import rows_of
from models.metrics.face_embedding import FaceEmbedding
from pipeline import images, weights
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.directions import scores
from stages.evaluate.control import spearman
from stages.loaders import directions as loader
from stages.loaders import generator as generators

PORTRAITS = 100
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
MIDDLE = STEPS.index(0.0)

Floats = NDArray[np.float64]


def run(ctx: Context) -> int:
    """Print a JSON line per direction, over the first PORTRAITS (or --limit) content portraits in CACHE.

    Inversions are edited, without a style; their scores are kept in CACHE/content/edits.h5.
    Raises: UserError(2) when CACHE has no latents, or the profile no direction that is offered.
    """
    names = loader.offered(ctx)
    if not names:
        raise UserError(f"profile {ctx.profile.name} has no editing.directions; make some by `hypernst directions`", 2)
    stage, ctx = spec(ctx), dataclasses.replace(ctx, limit=ctx.limit or PORTRAITS)
    run_stage(stage, "content", ctx)
    with Cache(ctx.file("content", stage.output)) as cache:
        rows = list(cache.rows(cache.keys()[: ctx.limit], list(stage.columns)))
    for i, name in enumerate(names):
        table, likeness = (np.array([row[column][i] for row in rows], np.float64) for column in ("scores", "likeness"))
        print(json.dumps({"direction": name} | summary(name, table, likeness)))
    return 0


def spec(ctx: Context) -> StageSpec:
    """edits.h5: of each direction on offer the scores f32 [steps, attributes], and cosines f32 [steps] of identity."""
    p, names = ctx.profile, loader.offered(ctx)
    detector = "" if p.align.detector == "none" else p.align.detector
    used = (p.generator.weights, p.generator.head, detector, *p.editing.directions, *scores.NETWORKS, "face-embedding")
    return StageSpec(
        name="edits",
        output="edits",
        columns={
            "scores": Column("f4", (len(names), len(STEPS), len(ATTRIBUTES))),
            "likeness": Column("f4", (len(names), len(STEPS))),
        },
        parents={"latents": ("latent",)},
        producers={"latents": "latents"},
        params={
            "directions": names,
            "coarse": loader.COARSE,
            "steps": list(STEPS),
            "generator": p.section_dict("generator"),
            "seed": p.seed,
        },
        weights={name: weights.sha256(name) for name in filter(None, used)},
        batch=1,
        open=open_worker,
    )


def open_worker(ctx: Context) -> Worker:
    """Load the generator, its directions, and the networks that judge."""
    net = generators.generator(ctx)
    found = loader.directions(ctx, net)
    steps = [found[name] for name in loader.offered(ctx)]
    score, person = scores.scorer(ctx), FaceEmbedding(weights.path("face-embedding"))
    render = rows_of(net, narrow_type(ctx.device)) or net

    def judged(latent: torch.Tensor) -> tuple[list[float], NDArray[np.float32]]:
        with torch.no_grad():
            image = images.to_arrays(render(latent))[0]
        seen = score(image)
        return [seen[name] for name in ATTRIBUTES] if seen else [np.nan] * len(ATTRIBUTES), person(image)

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:
            latent = torch.from_numpy(item["latents.latent"])[None].to(ctx.device)
            own = judged(latent)
            made = [[judged(latent + t * step) if t else own for t in STEPS] for step in steps]
            rows.append(
                {
                    "scores": np.array([[of_step for of_step, _ in row] for row in made]),
                    "likeness": np.array([[float(code @ own[1]) for _, code in row] for row in made]),
                }
            )
        return rows

    return work


def summary(name: str, table: Floats, likeness: Floats) -> dict[str, Any]:
    """The figures of a direction from scores [portraits, steps, attributes] and cosines [portraits, steps].

    "moves" is by how many std (of the portraits as they are) each attribute moves from the first to the last step in
    the mean, "moves, each" the mean of its absolute value.
    """
    whole = ~np.isnan(table).any((1, 2))  # a face was found at each step
    table, likeness = table[whole], likeness[whole]
    spread = table[:, MIDDLE].std(0)
    moved = (table[:, -1] - table[:, 0]) / np.where(spread > 0, spread, 1)
    own = table[:, :, ATTRIBUTES.index(name)]
    ranks = np.array([spearman(STEPS, row) for row in own])
    return {
        "portraits": int(whole.sum()),
        "without a face at some step": int((~whole).sum()),
        "spearman, mean": round(float(ranks.mean()), 3),
        "spearman, share of at least 0.9": round(float((ranks > 0.9 - 1e-9).mean()), 3),
        "scores": np.round(own.mean(0), 2).tolist(),
        "identity, median": np.round(np.median(likeness, 0), 3).tolist(),
        "moves": dict(zip(ATTRIBUTES, np.round(moved.mean(0), 2).tolist(), strict=True)),
        "moves, each": dict(zip(ATTRIBUTES, np.round(np.abs(moved).mean(0), 2).tolist(), strict=True)),
    }
