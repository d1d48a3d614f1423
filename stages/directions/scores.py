"""Score generated faces: CACHE/directions/scores.h5 has a latent of W and its attributes in each row."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models.editing.attributes import ATTRIBUTES, AttributeScorer
from pipeline import images, ours, weights
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.loaders.directions import TRUNCATION
from stages.loaders.face_detector import open_detector

if TYPE_CHECKING:
    from torch import Tensor

    from models.generators.interface import Generator

OUTPUT = "scores"
NETWORKS = ("face-age", "face-gender", "face-expression", "bisenetv2-celebamask")  # that score

MOST = 100_000  # faces


def spec(ctx: Context) -> StageSpec:
    """scores.h5 of generated faces: w f32 [512], and a number for each of ATTRIBUTES."""
    p = ctx.profile
    detector = "" if p.align.detector == "none" else p.align.detector
    names = filter(None, (p.generator.weights, p.generator.head, detector, *NETWORKS))
    return StageSpec(
        name="directions",
        output=OUTPUT,
        columns={"w": Column("f4", (512,))} | {name: Column("f4") for name in ATTRIBUTES},
        params={"generator": p.section_dict("generator"), "truncation": TRUNCATION, "seed": p.seed},
        weights={name: weights.sha256(name) for name in names},
        numbered=MOST,
        batch=4,
        open=open_worker,
    )


def open_worker(ctx: Context) -> Worker:
    """Load the generator and the networks that score."""
    import torch

    from models.generators.latent_renderer import narrow_type
    from models.generators.region_renderer import rows_of
    from stages.loaders import generator

    net, score = generator.generator(ctx), scorer(ctx)
    render, mean = rows_of(net, narrow_type(ctx.device)) or net, middle(ctx, net)

    @torch.no_grad()
    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:  # one at a time: a row must not depend on its batch
            w = draw(ctx, net, mean, int(item.key))
            image = render(w[:, None].expand(-1, net.num_ws, -1))
            scores = score(images.to_arrays(image)[0])
            rows.append({"w": w[0].cpu().numpy()} | scores if scores else Reject("no face was found"))
        return rows

    return work


def scorer(ctx: Context) -> AttributeScorer:
    """What scores portraits, with the profile's detector. Raises: UserError when a network cannot be had."""
    age, gender, expression, parser = NETWORKS
    try:
        return AttributeScorer(
            open_detector(ctx),
            weights.path(age),
            weights.path(gender),
            weights.tensors(expression),
            weights.tensors(parser),
        )
    except ValueError as error:
        raise UserError(f"{', '.join(NETWORKS)}: {error}; fetch them again") from error


def middle(ctx: Context, net: "Generator") -> "Tensor":
    """The mean latent [1, 512], towards which latents are truncated."""
    return net.mean_latent(20_000, ctx.profile.seed)[None]


def draw(ctx: Context, net: "Generator", mean: "Tensor", number: int) -> "Tensor":
    """A latent of W [1, 512] that follows from the profile's seed and a number."""
    import torch

    z = np.random.default_rng([ctx.profile.seed, number]).standard_normal((1, 512), dtype=np.float32)
    return mean + TRUNCATION * (net.map(torch.from_numpy(z).to(ctx.device)) - mean)


def read(ctx: Context, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Latents [N, 512] and N scores of each attribute of `count` generated faces; computes those that are missing.

    A face that no score could be had for is left out. Raises: UserError as `run_stage`.
    """
    stage, ctx = spec(ctx), dataclasses.replace(ctx, limit=count)
    run_stage(stage, ours.DIRECTIONS, ctx)
    with Cache(ctx.file(ours.DIRECTIONS, OUTPUT)) as cache:
        keys = sorted(key for key in cache.keys() if int(key) < count)  # noqa: SIM118 - a cache is no dictionary
        rows = list(cache.rows(keys, list(stage.columns)))
    return np.stack([row["w"] for row in rows]), {n: np.array([row[n] for row in rows]) for n in ATTRIBUTES}
