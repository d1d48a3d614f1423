"""Invert every aligned picture to a W+ latent of the frozen generator, and note how well that went."""

from collections.abc import Sequence

from pipeline import weights
from pipeline.context import Context
from pipeline.runner import Column, Item, Reject, Row, StageSpec, Worker, run_collections


def spec(ctx: Context) -> StageSpec:
    """latents.h5: latent f32 18x512 and the reconstruction's LPIPS-alex."""
    p = ctx.profile
    names = (p.inverter.weights, p.generator.weights, p.generator.head, "lpips-alex")
    return StageSpec(
        name="latents", output="latents", parents={"images": ("image",)},
        columns={"latent": Column("f4", (18, 512)), "lpips": Column("f4")},
        params={"inverter": p.section_dict("inverter"), "generator": p.section_dict("generator"), "size": p.align.size},
        weights={name: weights.sha256(name) for name in names}, batch=4, open=open_worker)


def open_worker(ctx: Context) -> Worker:
    """Load the inverter and the generator."""
    import torch

    from models.lpips import LPIPS
    from pipeline import pictures
    from stages import networks

    invert = networks.Inversion(ctx)
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


def run(ctx: Context) -> int:
    """Fill latents.h5 of both collections."""
    return run_collections(spec(ctx), ctx)
