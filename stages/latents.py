"""Invert every aligned picture to a W+ latent of the frozen generator, and note how well that went.

Content is rendered from its latent, so it gets the profile's steps of descent; of a style only the codes are used,
and the encoder's latent is enough.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import Fault
from pipeline.runner import Column, Item, Reject, Row, StageSpec, Worker, run_stage


def spec(ctx: Context, collection: str = "content") -> StageSpec:
    """latents.h5: latent f32 [slots, 512] of the generator's W+, and the reconstruction's LPIPS-alex."""
    p = _settings(ctx, collection).profile
    eyes = ("lpips-alex", "lpips-vgg") if p.inverter.steps else ("lpips-alex",)
    names = filter(None, (p.inverter.weights, p.generator.weights, p.generator.head, *eyes))
    return StageSpec(
        name="latents", output="latents", parents={"images": ("image",)},
        columns={"latent": Column("f4", (slots(ctx), 512)), "lpips": Column("f4")},
        params={"inverter": p.section_dict("inverter"), "generator": p.section_dict("generator"), "size": p.align.size},
        weights={name: weights.sha256(name) for name in names}, batch=4,
        version=2 if p.inverter.steps else 1,  # 2: the descent compares the face as well, in the metric of W+
        open=lambda ctx: open_worker(_settings(ctx, collection)))


def open_worker(ctx: Context) -> Worker:
    """Load the inverter and the generator."""
    import torch

    from models.lpips import LPIPS
    from pipeline import pictures
    from stages import networks

    invert = networks.inversion(ctx)
    lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)

    @torch.no_grad()
    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:  # one at a time: a row must not depend on its batch; a CPU loses nothing by it
            x = pictures.to_tensor(pictures.decode(item["images.image"], ctx.profile.align.size)).to(ctx.device)
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


def slots(ctx: Context) -> int:
    """Latents a W+ code has: two an octave and two at 4 px, by the generator's own file.

    MobileStyleGAN takes those of the 1024 px generator that it was distilled from.
    """
    if not ctx.profile.generator.weights:
        return 2 * int(math.log2(ctx.profile.generator.size)) - 2
    octaves = sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight")
                  for name in weights.names(ctx.profile.generator.weights))
    return 2 * octaves + 2 if octaves else 18


def identity(ctx: Context) -> dict[str, list[str]]:
    """What a latent belongs to: generator and encoder, each by name and sha256."""
    names = {"generator": ctx.profile.generator.weights, "encoder": ctx.profile.inverter.weights}
    return {role: [name, weights.sha256(name)] for role, name in names.items() if name}


def made_with(provenance: Mapping[str, Any]) -> dict[str, list[str]]:
    """The `identity` that a latents.h5 or an index of shards was made with; {} where none is recorded."""
    if "latents" in provenance:
        return dict(provenance["latents"])
    params, digests = provenance.get("params", {}), provenance.get("weights", {})
    named = {"generator": params.get("generator", {}), "encoder": params.get("inverter", {})}
    return {role: [section["weights"], digests[section["weights"]]] for role, section in named.items()
            if section.get("weights") in digests}


def refuse_others(ctx: Context, provenance: Mapping[str, Any], where: Path) -> None:
    """Latents are only of use with the generator and the encoder that they were made with.

    Raises: Fault naming both pairs when the profile has others.
    """
    theirs = made_with(provenance)
    ours = identity(ctx) if theirs else {}
    if any(theirs[role] != ours.get(role) for role in theirs):
        raise Fault(f"{where}: its latents are of {_names(theirs)}, profile {ctx.profile.name} has {_names(ours)}; run "
                    "`hypernst latents` and what follows again, or choose another profile or --cache", 2)


def _names(found: Mapping[str, list[str]]) -> str:
    return " and ".join(f"{role} {name} ({digest[:8]})" for role, (name, digest) in found.items())


def run(ctx: Context) -> int:
    """Fill latents.h5 of both collections."""
    return max(run_stage(spec(ctx, name), name, ctx).status(ctx.max_rejects) for name in COLLECTIONS)
