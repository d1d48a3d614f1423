"""Train e4e, the encoder of a portrait into a StyleGAN2's W+ (Tov et al. 2021), for the profile's generator.

Reconstruction (L2, LPIPS-alex, optionally ArcFace's distance) against two terms that keep latents editable: offsets
between the slots, unlocked one by one, stay short, and a critic tells every unlocked slot's latent from mapped z.
Statistics of the body's batch normalisation are measured once and then fixed, so that neither the batch nor the number
of processes changes the result. Critics see the step's own latents; e4e's pool of earlier ones is left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.irse import Backbone
from models.discriminators.latent import LatentCritic
from models.encoders.e4e import Encoder4Editing, unlocked
from models.losses import adversarial
from models.metrics.identity import Identity
from models.metrics.lpips import LPIPS
from pipeline import files, images, progress, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.training import checkpoint
from pipeline.training.distributed import joined
from pipeline.training.loop import Loop
from pipeline.training.prefetch import Ahead
from pipeline.training.state import State, advance
from stages.loaders import generator as networks
from stages.loaders import identity as identities
from stages.loaders import inversion as inversions

NAME = "train-inverter"
SAVE_EVERY = 500
SIDE = 256  # px that the encoder reads
CHUNK = 4  # pictures that go through the networks at once
RATE, CRITIC_RATE = 1e-4, 2e-5
WARM_UP = 100
LPIPS_WEIGHT, DELTA_WEIGHT, CRITIC_WEIGHT = 0.8, 2e-4, 0.1
PENALTY, PENALTY_EVERY = 10.0, 16
MEASURED = 64  # pictures behind the normalisation's statistics
SHOWN = 4


@dataclass(frozen=True)
class Draws:
    """A step's samples: pictures u8 [N, 256, 256, 3], and z [N, 512] whose mapped latents are real to the critic."""

    real: np.ndarray
    z: Tensor


@dataclass(frozen=True)
class Course:
    """The networks of a run and what is asked of them."""

    net: Encoder4Editing
    critic: LatentCritic
    generator: Any
    lpips: LPIPS
    identity: Identity | None
    identity_weight: float
    optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
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
    """Train on all aligned pictures under `data` until `steps` in all, or `minutes` of this call; the same goes on.

    A slot is unlocked each `unlock` steps, the first after ten times as many. Starts from the profile's encoder where
    that is on this machine, else its body from `train.identity_weights`, else from nothing. Writes the encoder in its
    published layout, with the average latent, to `output`; the profile can name it, `weights import` takes it.
    """
    folder, photos = ctx.run / NAME, images.Folder(data, SIDE)
    with joined(ctx) as (team, ctx):
        if batch < team.count:
            raise Fault(f"{NAME}: a batch of {batch} for {team.count} processes; expected one picture a process", 2)
        course, start = _course(ctx, batch, unlock)
        recipe = {
            "generator": weights.sha256(ctx.profile.generator.weights),
            "batch": batch,
            "unlock": unlock,
            "seed": ctx.profile.seed,
            "identity": ctx.profile.train.identity,
        }
        state = State(
            folder / "checkpoint.safetensors",
            {"net": course.net, "critic": course.critic},
            {"adam": course.optimiser, "critic_adam": course.critic_optimiser},
            recipe,
        )
        if not state.resume():
            if start != ctx.profile.inverter.weights:
                measure(course.net, photos, ctx.profile.seed)
            progress.say(f"{NAME}: starts from {start or 'nothing'}")

        def save(step: int) -> None:
            state.save(step, loop.seconds)
            grid = _grid(course, photos, step)
            loop.picture("reconstructions", grid)
            files.write_atomic(folder / "reconstructions.png", images.encode(grid))

        loop = Loop(
            NAME,
            folder,
            steps,
            save=save,
            step=state.step,
            minutes=minutes,
            images=batch,
            spent=state.seconds,
            save_every=SAVE_EVERY,
            team=team,
        )
        own = range(team.rank, batch, team.count)
        with loop, Ahead(lambda step: draw(photos, ctx.profile.seed, step, own)) as ahead:
            for step in loop:
                loop.tell(train_step(course, ahead[step], step, loop))
        if team.first:
            place = output or folder / "e4e.safetensors"
            meta = {
                "what": f"e4e encoder for {ctx.profile.generator.weights}",
                "steps": state.step,
                "generator_sha256": recipe["generator"],
                "data": f"{len(photos)} pictures of {data.name}",
                "command": f"hypernst {NAME} --data {data.name} --steps {state.step} --batch {batch} --unlock {unlock}",
            }
            average = course.net.latent_avg
            assert average is not None
            checkpoint.save(place, course.net.state_dict() | {"latent_avg": average}, meta)
            print(f'{NAME}: {state.step} steps; for the profile: inverter.weights = "{weights.as_name(place)}"')
    return 0


def draw(photos: images.Folder, seed: int, step: int, own: range) -> Draws:
    """The samples numbered `own` of a step's batch; half of the pictures are mirrored."""
    real, z = [], []
    for i in own:
        rng = np.random.default_rng([seed, step, i])
        picture = photos[int(rng.integers(len(photos)))]
        real.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
        z.append(rng.standard_normal(512, dtype=np.float32))
    return Draws(np.stack(real), torch.from_numpy(np.stack(z)))


def train_step(course: Course, draws: Draws, step: int, loop: Loop) -> dict[str, float]:
    """A step of the latents' critic, then one of the encoder; their losses, means over all processes' samples."""
    average, slots = course.net.latent_avg, unlocked(step, course.unlock, course.net.slots)
    assert average is not None
    pixels, z = images.to_tensor(draws.real).to(average.device), draws.z.to(average.device)
    due = PENALTY_EVERY if step % PENALTY_EVERY == 0 else 0
    names = [
        "l2",
        "lpips",
        "delta",
        "adversarial",
        "critic",
        *(["r1"] if due else []),
        *(["identity"] if course.identity else []),
    ]
    sums = dict.fromkeys(names, 0.0)

    def add(name: str, value: Tensor, share: float) -> Tensor:
        sums[name] += float(value.detach()) * share
        return value * share

    course.critic.requires_grad_(False)
    fakes = []
    for i in range(0, len(pixels), CHUNK):
        x, share = pixels[i : i + CHUNK], len(pixels[i : i + CHUNK]) / course.batch
        latent = course.net.codes(x, slots) + average
        fakes.append(latent[:, :slots].detach())
        y = course.generator(latent)
        wanted = F.interpolate(x, y.shape[-2:], mode="bilinear", antialias=True) if y.shape != x.shape else x
        distance = course.lpips(y, wanted).mean()
        loss = add("l2", F.mse_loss(y, wanted), share) + LPIPS_WEIGHT * add("lpips", distance, share)
        if course.identity is not None:
            loss = loss + course.identity_weight * add("identity", course.identity(y, x).mean(), share)
        offsets = (latent[:, 1:slots] - latent[:, :1]).norm(dim=2).sum(1).mean()
        judged = adversarial.generator_loss(course.critic(latent[:, :slots].flatten(0, 1)))
        loss = loss + DELTA_WEIGHT * add("delta", offsets, share) + CRITIC_WEIGHT * add("adversarial", judged, share)
        loss.backward()
    bad = advance(course.optimiser, loop.team, rate=RATE * min(1.0, (step + 1) / WARM_UP))
    course.critic.requires_grad_(True)
    share = len(pixels) / course.batch
    with torch.no_grad():
        w = course.generator.map(z)
    w.requires_grad_(bool(due))
    scores = course.critic(w)
    loss = add("critic", adversarial.critic_loss(scores, course.critic(torch.cat(fakes).flatten(0, 1))), share)
    if due:
        loss = loss + due * add("r1", adversarial.r1(scores, [w], PENALTY), share)
    loss.backward()
    loop.count(advance(course.critic_optimiser, loop.team) or bad)
    return dict(zip(sums, loop.team.total(sums.values()), strict=True)) | {"slots": slots}


@torch.no_grad()
def measure(net: Backbone, photos: images.Folder, seed: int) -> None:
    """Set the statistics of the body's normalisation to those of MEASURED pictures."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    device = next(net.parameters()).device
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all chunks, each counting as much
        layer.train()
    chosen = np.random.default_rng([seed, MEASURED]).choice(len(photos), min(MEASURED, len(photos)), replace=False)
    for i in range(0, len(chosen), CHUNK):
        net.look(images.to_tensor(np.stack([photos[int(j)] for j in chosen[i : i + CHUNK]])).to(device))
    for layer in layers:
        layer.momentum = 0.1
        layer.eval()


def _course(ctx: Context, batch: int, unlock: int) -> tuple[Course, str]:
    """The run's networks, and the name of the weights that the encoder starts from ("" for none)."""
    torch.manual_seed(ctx.profile.seed)
    settings = ctx.profile.train
    generator: Any = networks.generator(ctx)
    generator.checkpointing = settings.checkpointing
    net, start = inversions.new_encoder(ctx, generator.slots)
    net.latent_avg = networks.average_latent(ctx, generator).to(ctx.device).reshape(-1, 512)
    net.to(ctx.device).requires_grad_(True).eval()
    critic = LatentCritic().to(ctx.device)
    identity = identities.identity(ctx)
    lazy = PENALTY_EVERY / (PENALTY_EVERY + 1)
    return Course(
        net,
        critic,
        generator,
        LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device),
        identity,
        settings.identity,
        torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.99)),
        torch.optim.Adam(critic.parameters(), lr=CRITIC_RATE, betas=(0.0, 0.99**lazy)),
        batch,
        unlock,
    ), start


@torch.no_grad()
def _grid(course: Course, photos: images.Folder, step: int) -> np.ndarray:
    """The first pictures over what the generator makes of their latents: u8 [2 S, SHOWN * S, 3]."""
    average = course.net.latent_avg
    assert average is not None
    x = images.to_tensor(np.stack([photos[i] for i in range(min(SHOWN, len(photos)))])).to(average.device)
    y = course.generator(course.net.codes(x, unlocked(step, course.unlock, course.net.slots)) + average)
    x = F.interpolate(x, y.shape[-2:], mode="bilinear", antialias=True)
    return np.concatenate([np.concatenate(list(images.to_arrays(t)), 1) for t in (x, y)])
