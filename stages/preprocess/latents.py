"""Invert every aligned image to a W+ latent of the frozen generator, and note how well that went.

Content is rendered from its latent, so it gets the profile's steps of optimisation; of a style only the codes are used,
and the encoder's latent is enough.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from pipeline import weights
from pipeline.caches.schema import Column, Row
from pipeline.context import COLLECTIONS, Context
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.loaders import origins
from stages.preprocess.producers import PRODUCERS


def spec(ctx: Context, collection: str = "content") -> StageSpec:
    """latents.h5: latent f32 [num_ws, 512] of the generator's W+, and the reconstruction's LPIPS-alex."""
    p = _settings(ctx, collection).profile
    portable = p.generator.kind == "mobilestylegan"  # other kinds have no output head, and encoders of one pass
    steps = p.inverter.steps if portable else 0
    eyes = ("lpips-alex", "lpips-vgg") if steps else ("lpips-alex",)
    names = filter(None, (p.inverter.weights, p.generator.weights, p.generator.head if portable else "", *eyes))
    inverter: dict[str, Any] = {"weights": p.inverter.weights}
    return StageSpec(
        name="latents",
        output="latents",
        parents={"images": ("image",)},
        producers=PRODUCERS,
        columns={"latent": Column("f4", (num_ws(ctx), 512)), "lpips": Column("f4")},
        params={
            "inverter": inverter | ({"passes": p.inverter.iterations, "steps": steps} if portable else {}),
            "generator": p.section_dict("generator") | ({} if portable else {"head": ""}),
            "size": p.align.size,
        }
        | ({"seed": p.seed} if origins.inversion_is_seeded(ctx) else {}),
        weights={name: weights.sha256(name) for name in names},
        batch=4,
        version=4 if steps else 1,  # 4: the metric counts directions of less weight
        open=lambda ctx: open_worker(_settings(ctx, collection)),
    )


def open_worker(ctx: Context) -> Worker:
    """Load the inverter and the generator."""
    import torch

    from models.metrics.lpips import LPIPS
    from pipeline import images
    from stages.loaders import inversion as networks

    invert = networks.inversion(ctx)
    lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)

    @torch.no_grad()
    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:  # one at a time: a row must not depend on its batch; a CPU loses nothing by it
            x = images.to_tensor(images.decode(item["images.image"], ctx.profile.align.size)).to(ctx.device)
            latent = invert(x)
            distance = lpips(invert.generator(latent).clamp(-1, 1), x)
            rows.append({"latent": latent[0].cpu().numpy(), "lpips": distance[0].cpu().numpy()})
        return rows

    return work


def _settings(ctx: Context, collection: str) -> Context:
    """The context as the collection's latents are computed with."""
    if collection == "content":
        return ctx
    inverter = dataclasses.replace(ctx.profile.inverter, steps=0)
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, inverter=inverter))


def num_ws(ctx: Context) -> int:
    """Latents a W+ code has: two an octave and two at 4 px, by the generator's own file.

    MobileStyleGAN takes those of the 1024 px generator that it was distilled from.
    """
    if not ctx.profile.generator.weights:
        return 2 * int(math.log2(ctx.profile.generator.size)) - 2
    octaves = sum(
        name.startswith("to_rgbs.") and name.endswith(".conv.weight")
        for name in weights.names(ctx.profile.generator.weights)
    )
    return 2 * octaves + 2 if octaves else 18


def run(ctx: Context) -> int:
    """Fill latents.h5 of both collections."""
    return max(run_stage(spec(ctx, name), name, ctx).status(ctx.max_rejects) for name in COLLECTIONS)
