"""Train e4e, the encoder of a portrait into a StyleGAN2's W+ (Tov et al. 2021), for the profile's generator.

The reconstruction loss is L2, LPIPS-alex and optionally ArcFace's distance. Two terms keep latents editable: offsets
between the W+ layers, which are unlocked one by one, stay short, and a discriminator tells the latent of every unlocked
layer from mapped z. Statistics of the body's batch normalisation are measured once and then fixed, so that neither the
batch nor the number of processes changes the result. The discriminator sees the step's own latents; e4e's pool of
earlier ones is left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.irse import Backbone
from models.discriminators.latent import LatentDiscriminator
from models.encoders.e4e import Encoder4Editing, unlocked
from models.losses import adversarial
from models.metrics.identity import Identity
from models.metrics.lpips import LPIPS
from pipeline import files, images, progress, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.distributed import init_distributed
from pipeline.training.loop import SAVE_EVERY, Loop, lock_run
from pipeline.training.prefetch import Prefetcher
from pipeline.training.state import State, advance
from stages.loaders import generator as generators
from stages.loaders import identity as identities
from stages.loaders import inversion as inversions
from stages.loaders import origins

NAME = "train-inverter"
SIDE = 256  # px that the encoder reads
CHUNK = 4  # images that go through the networks at once
RATE, DISCRIMINATOR_RATE = 1e-4, 2e-5
WARM_UP = 100
LPIPS_WEIGHT, DELTA_WEIGHT, DISCRIMINATOR_WEIGHT = 0.8, 2e-4, 0.1
PENALTY, PENALTY_EVERY = 10.0, 16
MEASURED = 64  # images that the normalisation's statistics are measured on
SHOWN = 4


@dataclass(frozen=True)
class TrainBatch:
    """A step's samples: images u8 [N, 256, 256, 3], and z [N, 512] whose mapped latents count as real."""

    real: np.ndarray
    z: Tensor


@dataclass(frozen=True)
class Setup:
    """The networks of a run and its settings."""

    net: Encoder4Editing
    discriminator: LatentDiscriminator
    generator: Any
    lpips: LPIPS
    identity: Identity | None
    identity_weight: float
    optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer
    batch: int
    unlock: int


def run(
    ctx: Context,
    *,
    data: Path,
    steps: int = 200_000,
    minutes: float | None = None,
    batch: int = 8,
    unlock: int = 2000,
    output: Path | None = None,
) -> int:
    """Train on all aligned images under `data` until `steps` in all, or `minutes` of this call; run again to resume.

    A W+ layer is unlocked every `unlock` steps, the first one after ten times as many. Starts from the profile's
    encoder if that is on this machine, else with the body of `train.identity_weights`, else from random weights. Writes
    the encoder in its published layout, with the average latent, to `output`: a profile can name it, and `weights
    import` takes it.
    Raises: UserError(2) when the batch is smaller than the number of processes.
    """
    folder, photos = ctx.run / NAME, images.Folder(data, SIDE)
    with init_distributed(ctx) as (process_group, ctx), lock_run(folder, process_group, NAME):
        if batch < (least := process_group.world_size):
            raise UserError(f"{NAME}: --batch is {batch}; expected at least {least}, one image per process", 2)
        setup, start = build_setup(ctx, batch, unlock)
        recipe = origins.generator(ctx) | origins.identity(ctx)
        recipe |= {"batch": batch, "unlock": unlock, "seed": ctx.profile.seed}
        state = State(
            folder / "checkpoint.safetensors",
            {"net": setup.net, "discriminator": setup.discriminator},
            {"adam": setup.optimiser, "discriminator_adam": setup.discriminator_optimiser},
            recipe,
            {"data": photos.identity()},
        )
        if not state.resume():
            if start != ctx.profile.inverter.weights:
                measure(setup.net, photos, ctx.profile.seed)
            progress.say(f"{NAME}: starts from {start or 'random weights'}")

        def saved(step: int) -> None:
            grid = _grid(setup, photos, step)
            loop.picture("reconstructions", grid)
            files.write_atomic(folder / "reconstructions.png", images.encode(grid))

        loop = Loop.of(
            NAME,
            state,
            steps,
            saved=saved,
            minutes=minutes,
            images=batch,
            save_every=SAVE_EVERY,
            process_group=process_group,
        )
        numbers = range(process_group.rank, batch, process_group.world_size)
        with loop, Prefetcher(lambda step: sample_batch(photos, ctx.profile.seed, step, numbers)) as prefetched:
            for step in loop:
                loop.tell(train_step(setup, prefetched[step], step, loop))
        if process_group.is_main:
            place = output or folder / "e4e.safetensors"
            meta = {
                "what": f"e4e encoder for {ctx.profile.generator.weights}",
                "steps": state.step,
                "generator_sha256": recipe["generator"],
                "data": f"{len(photos)} pictures of {data.name}",
                "command": f"hypernst {NAME} --data {data.name} --steps {state.step} --batch {batch} --unlock {unlock}",
            }
            latent_avg = setup.net.latent_avg
            assert latent_avg is not None
            checkpoint.save(place, setup.net.state_dict() | {"latent_avg": latent_avg}, meta)
            print(f'{NAME}: {state.step} steps; for the profile: inverter.weights = "{weights.as_name(place)}"')
    return 0


def sample_batch(photos: images.Folder, seed: int, step: int, numbers: range) -> TrainBatch:
    """The samples `numbers` of a step's batch; half of the images are mirrored."""
    real, z = [], []
    for i in numbers:
        rng = np.random.default_rng([seed, step, i])
        image = photos[int(rng.integers(len(photos)))]
        real.append(image[:, ::-1] if rng.random() < 0.5 else image)
        z.append(rng.standard_normal(512, dtype=np.float32))
    return TrainBatch(np.stack(real), torch.from_numpy(np.stack(z)))


def train_step(setup: Setup, batch: TrainBatch, step: int, loop: Loop) -> dict[str, float]:
    """A step of the latent discriminator, then one of the encoder; their losses, averaged over all processes."""
    latent_avg, num_ws = setup.net.latent_avg, unlocked(step, setup.unlock, setup.net.num_ws)
    assert latent_avg is not None
    pixels, z = images.to_tensor(batch.real).to(latent_avg.device), batch.z.to(latent_avg.device)
    due = PENALTY_EVERY if step % PENALTY_EVERY == 0 else 0
    names = [
        "l2",
        "lpips",
        "delta",
        "adversarial",
        "discriminator",
        *(["r1"] if due else []),
        *(["identity"] if setup.identity else []),
    ]
    sums = dict.fromkeys(names, 0.0)

    def add(name: str, value: Tensor, share: float) -> Tensor:
        sums[name] += float(value.detach()) * share
        return value * share

    setup.discriminator.requires_grad_(False)
    fakes = []
    for i in range(0, len(pixels), CHUNK):
        x, share = pixels[i : i + CHUNK], len(pixels[i : i + CHUNK]) / setup.batch
        latent = setup.net.codes(x, num_ws) + latent_avg
        fakes.append(latent[:, :num_ws].detach())
        y = setup.generator(latent)
        target = F.interpolate(x, y.shape[-2:], mode="bilinear", antialias=True) if y.shape != x.shape else x
        distance = setup.lpips(y, target).mean()
        loss = add("l2", F.mse_loss(y, target), share) + LPIPS_WEIGHT * add("lpips", distance, share)
        if setup.identity is not None:
            loss = loss + setup.identity_weight * add("identity", setup.identity(y, x).mean(), share)
        offsets = (latent[:, 1:num_ws] - latent[:, :1]).norm(dim=2).sum(1).mean()
        judged = adversarial.generator_loss(setup.discriminator(latent[:, :num_ws].flatten(0, 1)))
        loss = (
            loss
            + DELTA_WEIGHT * add("delta", offsets, share)
            + DISCRIMINATOR_WEIGHT * add("adversarial", judged, share)
        )
        loss.backward()
    bad = advance(setup.optimiser, loop.process_group, rate=RATE * min(1.0, (step + 1) / WARM_UP))
    setup.discriminator.requires_grad_(True)
    share = len(pixels) / setup.batch
    with torch.no_grad():
        w = setup.generator.map(z)
    w.requires_grad_(bool(due))
    scores = setup.discriminator(w)
    loss = add(
        "discriminator",
        adversarial.discriminator_loss(scores, setup.discriminator(torch.cat(fakes).flatten(0, 1))),
        share,
    )
    if due:
        loss = loss + due * add("r1", adversarial.r1(scores, [w], PENALTY), share)
    loss.backward()
    loop.count(advance(setup.discriminator_optimiser, loop.process_group) or bad)
    return dict(zip(sums, loop.process_group.sum(sums.values()), strict=True)) | {"num_ws": num_ws}


@torch.no_grad()
def measure(net: Backbone, photos: images.Folder, seed: int) -> None:
    """Set the statistics of the body's normalisation to those of MEASURED images."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    device = next(net.parameters()).device
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all chunks, each with the same weight
        layer.train()
    chosen = np.random.default_rng([seed, MEASURED]).choice(len(photos), min(MEASURED, len(photos)), replace=False)
    for i in range(0, len(chosen), CHUNK):
        net.features(images.to_tensor(np.stack([photos[int(j)] for j in chosen[i : i + CHUNK]])).to(device))
    for layer in layers:
        layer.momentum = 0.1
        layer.eval()


def build_setup(ctx: Context, batch: int, unlock: int) -> tuple[Setup, str]:
    """The run's networks, and the name of the weights that the encoder starts from ("" for none)."""
    torch.manual_seed(ctx.profile.seed)
    settings = ctx.profile.train
    generator: Any = generators.generator(ctx)
    generator.checkpointing = settings.checkpointing
    net, start = inversions.new_encoder(ctx, generator.num_ws)
    net.latent_avg = generators.average_latent(ctx, generator).to(ctx.device).reshape(-1, 512)
    net.to(ctx.device).requires_grad_(True).eval()
    discriminator = LatentDiscriminator().to(ctx.device)
    identity = identities.identity(ctx)
    lazy = PENALTY_EVERY / (PENALTY_EVERY + 1)
    return Setup(
        net,
        discriminator,
        generator,
        LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device),
        identity,
        settings.identity,
        torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.99)),
        torch.optim.Adam(discriminator.parameters(), lr=DISCRIMINATOR_RATE, betas=(0.0, 0.99**lazy)),
        batch,
        unlock,
    ), start


@torch.no_grad()
def _grid(setup: Setup, photos: images.Folder, step: int) -> np.ndarray:
    """The first images, and below them the generator's images of their latents: u8 [2 * S, SHOWN * S, 3]."""
    latent_avg = setup.net.latent_avg
    assert latent_avg is not None
    x = images.to_tensor(np.stack([photos[i] for i in range(min(SHOWN, len(photos)))])).to(latent_avg.device)
    y = setup.generator(setup.net.codes(x, unlocked(step, setup.unlock, setup.net.num_ws)) + latent_avg)
    x = F.interpolate(x, y.shape[-2:], mode="bilinear", antialias=True)
    return np.concatenate([np.concatenate(list(images.to_arrays(t)), 1) for t in (x, y)])
