"""Train the inverter that belongs to the profile's kind of generator; for MobileStyleGAN that is the portable one.

Faces generated have known latents, real photos only have to look right. First the linear path is solved on generated
faces, and the metric of W+ for the optimisation that follows the encoder is measured at some of them and at as many
photos, inverted by that path. Then each step takes generated faces (latent loss, in units of W's deviation) and real
images (L2 + LPIPS-alex of the generated image, ArcFace's distance if the profile weighs it); a pull of the W+ layers
towards one another keeps latents editable (e4e's delta loss, its Eqs. 5-8).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.encoders.portable import SPANS, PortableEncoder, pool, solve_linear
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN
from models.metrics.identity import Identity
from models.metrics.lpips import LPIPS
from pipeline import images as pictures
from pipeline import progress, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.training import checkpoint
from pipeline.training.distributed import init_distributed
from pipeline.training.loop import SAVE_EVERY, Loop, lock_run
from pipeline.training.prefetch import Prefetcher
from pipeline.training.state import State, advance
from stages.loaders import generator as networks
from stages.loaders import identity as identities
from stages.loaders import origins
from stages.loaders.load import of_kind
from stages.pretrain import e4e as train_e4e
from stages.pretrain import latent_metric

NAME = "train-inverter"
OUTPUT = Path("weights/portable/inverter.safetensors")
LPIPS_WEIGHT, LATENT_WEIGHT, OFFSET_WEIGHT = 0.8, 0.5, 0.02
RATE, WARM_UP = 5e-4, 50
DRAWN, REAL = 2, 4  # faces a step
RIDGES = (0.03, 0.1, 0.3, 0.7, 1.5)
PROBED = 20  # faces drawn for the linear path for each that the metric is measured at; then as many photos
PASSES = 2  # of the encoder, for the photos' latents
READ_SPANS = (*SPANS[:-1], latent_metric.READ - sum(SPANS[:-1]))  # without the num_ws that the 256 px cut ignores
MAPPED = 20_000  # z behind the mean and the deviation of W


@dataclass(frozen=True)
class Setup:
    """The networks of a run, its length, and the mean face [1, 3, 256, 256] that inversion starts from."""

    net: PortableEncoder
    generator: MobileStyleGAN
    lpips: LPIPS
    identity: Identity | None
    identity_weight: float
    optimiser: torch.optim.Optimizer
    mean_face: Tensor
    steps: int
    seed: int


def run(ctx: Context, *, data: Path, **options: Any) -> int:
    """Train on the aligned images of folder `data`, as `portable` or `train_e4e.run` do; the same command goes on."""
    train = of_kind(ctx, KINDS, NAME)
    if strange := options.keys() - signature(train).parameters.keys():
        raise UserError(f"{NAME}: the encoder of a {ctx.profile.generator.kind} generator has no --{min(strange)}", 2)
    return train(ctx, data=data, **options)


def portable(
    ctx: Context,
    *,
    data: Path,
    steps: int = 3000,
    minutes: float | None = None,
    images: int = 8000,
    output: Path = OUTPUT,
) -> int:
    """Solve linear path and metric on `images` drawn faces and photos, then train to `steps` or `minutes` of this call.

    0 minutes saves these two alone. Checkpoint and log lie in the run folder; saves `output`.
    """
    folder, refine = ctx.run / NAME, minutes != 0
    photos = pictures.Folder(data, 256)
    with init_distributed(ctx) as (process_group, ctx), lock_run(folder, process_group, NAME):
        setup = build_setup(ctx, steps, refine, max(1, images // PROBED))
        recipe = origins.generator(ctx) | origins.identity(ctx)
        recipe |= {"images": images, "steps": steps, "seed": ctx.profile.seed}
        state = State(
            folder / "checkpoint.safetensors",
            {"net": setup.net},
            {"adam": setup.optimiser},
            recipe,
            {"data": photos.identity()},
        )
        if not refine:
            solve(setup, images, photos)
        elif not state.resume() and process_group.is_main:
            with lock(folder, NAME, nested=True):
                solve(setup, images, photos)
                state.save(0)
        process_group.broadcast_(setup.net)
        loop = Loop.of(
            NAME, state, steps, minutes=minutes, images=DRAWN + REAL, save_every=SAVE_EVERY, process_group=process_group
        )
        own = range(process_group.rank, DRAWN + REAL, process_group.world_size)
        if refine:
            with loop, Prefetcher(lambda step: draw(photos, ctx.profile.seed, step, own)) as prefetched:
                for step in loop:
                    loop.tell(train_step(setup, prefetched[step], step, loop))
        if process_group.is_main:
            meta = {
                "what": "e4e-style inverter for MobileStyleGAN",
                "steps": state.step,
                "data": f"{len(photos)} pictures of {data.name}, and faces drawn from the generator",
                "command": f"hypernst train-inverter --data {data.name} "
                + (f"--steps {state.step}" if refine else "--minutes 0"),
            }
            checkpoint.save(output, checkpoint.half(setup.net.state_dict()), meta)
            print(f"saved {output} after {state.step} steps")
    return 0


KINDS: dict[str, Callable[..., int]] = {"mobilestylegan": portable, "stylegan2": train_e4e.run}


def build_setup(ctx: Context, steps: int, refine: bool, probed: int) -> Setup:
    torch.manual_seed(ctx.profile.seed)
    generator: Any = networks.generator(ctx)
    generator.checkpointing = ctx.profile.train.checkpointing
    lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
    z = torch.randn(MAPPED, 512, generator=torch.Generator().manual_seed(0))
    mapped = generator.map(z.to(ctx.device))
    net = PortableEncoder(mapped.mean(0), mapped.std(0), refine=refine, metric=latent_metric.blank(probed)).to(
        ctx.device
    )
    with torch.no_grad():
        mean_face = generator(net.mean.expand(1, NUM_WS, -1)).clamp(-1, 1)
    return Setup(
        net,
        generator,
        lpips,
        identities.identity(ctx),
        ctx.profile.train.identity,
        torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.99)),
        mean_face,
        steps,
        ctx.profile.seed,
    )


def draw(photos: pictures.Folder, seed: int, step: int, own: range) -> dict[int, np.ndarray | None]:
    """The samples numbered `own` of a step: None for those that the generator draws, images [1, 256, 256, 3] u8."""
    picked = np.random.default_rng([seed, step, DRAWN + REAL]).integers(len(photos), size=DRAWN + REAL)
    return {i: None if i < DRAWN else photos[int(picked[i])][None] for i in own}


def train_step(setup: Setup, batch: dict[int, np.ndarray | None], step: int, loop: Loop) -> dict[str, float]:
    """One optimiser step over DRAWN generated faces and REAL images; its losses, means over all processes."""
    sums = {"latent": 0.0, "lpips": 0.0, "l2": 0.0} | ({"identity": 0.0} if setup.identity else {})
    net, generator, lpips = setup.net, setup.generator, setup.lpips
    for i, picture in batch.items():
        rng = np.random.default_rng([setup.seed, step, i])
        passes = 1 + int(rng.random() < 0.4)
        if picture is None:
            target = draw_latent(generator, net.mean, rng)
            with torch.no_grad():
                x = generator(target).clamp(-1, 1)
            for latent in net.passes(x, lpips.trunk, generator, passes, setup.mean_face):
                loss = ((latent - target) / net.deviation).square().mean()
                (LATENT_WEIGHT * loss / DRAWN).backward(retain_graph=True)
            sums["latent"] += float(loss.detach()) / DRAWN
            continue
        x = pictures.to_tensor(picture).to(net.mean.device)
        for latent in net.passes(x, lpips.trunk, generator, passes, setup.mean_face):
            y = generator(latent)
            found = {"lpips": lpips(y, x).mean(), "l2": F.mse_loss(y, x)}
            spread = ((latent - latent.mean(1, keepdim=True)) / net.deviation).square().mean()
            loss = LPIPS_WEIGHT * found["lpips"] + found["l2"] + OFFSET_WEIGHT * spread
            if setup.identity is not None:
                found["identity"] = setup.identity(y, x).mean()
                loss = loss + setup.identity_weight * found["identity"]
            (loss / REAL).backward(retain_graph=True)
        for name, value in found.items():
            sums[name] += float(value.detach()) / REAL
    rate = RATE * min(1.0, (step + 1) / WARM_UP) * max(0.05, min(1.0, 2 * (1 - step / setup.steps)))
    loop.count(advance(setup.optimiser, loop.process_group, rate=rate, clip=1.0))
    return dict(zip(sums, loop.process_group.sum(sums.values()), strict=True))


def solve(setup: Setup, faces: int, photos: pictures.Folder) -> None:
    """Solve the linear path on `faces` generated faces, and measure the metric at some of them and at photos."""
    solve_path(setup, faces)
    net = setup.net
    if net.metric is not None:
        latents = _latents(setup, max(1, faces // PROBED), photos)
        metric = latent_metric.measure(setup.generator, net.deviation, latents, len(net.metric.values))
        net.metric.load_state_dict(metric.state_dict())


@torch.no_grad()
def _latents(setup: Setup, drawn: int, photos: pictures.Folder) -> Iterator[Tensor]:
    """Latents [1, 18, 512] to measure the metric at: of drawn faces, then of at most as many photos, half off W."""
    net = setup.net
    for i in range(drawn):
        yield latent_metric.draw(setup.generator, net.mean, net.deviation, np.random.default_rng([2, i]))
    for i, which in enumerate(np.random.default_rng(0).permutation(len(photos))[:drawn]):
        rng = np.random.default_rng([3, i])
        x = pictures.to_tensor(photos[int(which)]).to(net.mean.device)
        latent = net.passes(x, setup.lpips.trunk, setup.generator, PASSES, setup.mean_face)[-1]
        yield latent_metric.moved(latent, net.deviation, rng) if rng.random() < 0.5 else latent


@torch.no_grad()
def solve_path(setup: Setup, faces: int) -> None:
    """Solve the linear path on `faces` generated faces, with the ridge that does best on a tenth held out."""
    net, generator, lpips = setup.net, setup.generator, setup.lpips
    pooled, latents = [], []
    for i in range(faces):
        x, latent = draw_face(net, generator, i)
        pooled.append(pool(x, lpips.trunk(x)))
        spans = ((latent - net.mean) / net.deviation)[:, : latent_metric.READ].split(READ_SPANS, 1)
        latents.append(torch.cat([span.mean(1) for span in spans], 1))
        if (i + 1) % 250 == 0:
            progress.say(f"{NAME}: drew {i + 1} of {faces} faces")
    x, y, held = torch.cat(pooled), torch.cat(latents), max(1, faces // 10)
    errors = {}
    for ridge in RIDGES:
        squeeze, expand = solve_linear(x[held:], y[held:], ridge)
        guess = (x[:held] - x[held:].mean(0)) @ squeeze.T @ expand.T
        errors[ridge] = float((guess - (y[:held] - y[held:].mean(0))).square().mean() / y[:held].square().mean())
    best = min(errors, key=errors.__getitem__)
    told = ", ".join(f"{ridge:g}: {error:.4f}" for ridge, error in errors.items())
    progress.say(f"{NAME}: unexplained variance by ridge {told}")
    squeeze, expand = solve_linear(x, y, best)
    net.squeeze.weight.copy_(squeeze)
    net.expand.weight.copy_(expand)


def draw_face(net: PortableEncoder, generator: MobileStyleGAN, index: int) -> tuple[Tensor, Tensor]:
    """Image [1, 3, 256, 256] and latent [1, 18, 512] of the linear path's face number `index`."""
    rng = np.random.default_rng([1, index])
    latent = latent_metric.draw(generator, net.mean, net.deviation, rng)
    seen = pictures.to_tensor(spoil(pictures.to_arrays(generator(latent))[0], rng))
    return seen.to(latent.device), latent


def spoil(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What happens to photos: RGB [256, 256, 3] u8, each in a third of the cases blurred, noisy, saved as JPEG."""
    blurred, noisy, saved = rng.random(3) < 1 / 3
    if blurred:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.0)))
    if noisy:
        grain = rng.normal(0, rng.uniform(1, 5), picture.shape)
        picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
    return pictures.decode(pictures.encode(picture, ".jpg", int(rng.integers(40, 90)))) if saved else picture


def draw_latent(generator: MobileStyleGAN, mean: Tensor, rng: np.random.Generator) -> Tensor:
    """A truncated W latent [1, 18, 512], a third of the time of two faces."""
    z = torch.from_numpy(rng.standard_normal((2, 512), dtype=np.float32)).to(mean.device)
    w = mean + rng.uniform(0.5, 1.0) * (generator.map(z) - mean)
    cross = int(rng.integers(1, 3 * NUM_WS))
    return torch.stack([w[0] if i < cross else w[1] for i in range(NUM_WS)])[None]
