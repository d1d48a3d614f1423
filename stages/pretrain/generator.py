"""Fine-tune the profile's generator on portraits and artistic portraits, so that it generates both (section 3.4).

StyleGAN2's own training: non-saturating loss, lazy R1, style mixing, an EMA of the weights. By default the mapping
network is frozen: the encoder, the average latent and the semantic boundaries live in its W space, and keep their
meaning; only the images of W change. If the mapping network trains as well, latents drift and the encoder has to be
retrained. Noise maps are the generator's fixed ones, as everywhere in this project.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.discriminators.image import ImageDiscriminator
from models.losses import adversarial
from pipeline import files, images, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.distributed import init_distributed
from pipeline.training.loop import SAVE_EVERY, Loop, lock_run
from pipeline.training.prefetch import Prefetcher
from pipeline.training.state import State, advance
from stages.loaders import generator as generators
from stages.loaders import origins
from stages.loaders.load import of_kind
from stages.pretrain.generator_kinds import KINDS, Kind
from stages.weights_import import identify

NAME = "finetune-generator"
CHUNK = 4  # images that go through the networks at once
MIXING = 0.9  # share of the latents that mix two faces
PENALTY, PENALTY_EVERY = 10.0, 16
WARM_UP = 200  # steps over which the generator's rate rises: a new discriminator is untrained
HALF_LIFE, RISE = 10_000, 0.05  # of the EMA, in images; at first a share of the images so far, as in StyleGAN2-ADA
GRID = 8


@dataclass(frozen=True)
class TrainBatch:
    """A step's samples.

    Images u8 [N, S, S, 3]; z [N, 2, 2, 512] for discriminator and generator, two faces each; and the first W+ layer
    [N, 2] that takes the latent of the second face.
    """

    real: np.ndarray
    z: Tensor
    cross: Tensor


@dataclass(frozen=True)
class Setup:
    """The networks of a run and its settings; `source` is the original generator, None if `stay` is 0."""

    net: Any
    ema: Any
    source: Any
    discriminator: ImageDiscriminator
    optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer
    rate: float
    batch: int
    stay: float
    mapping: bool


def run(
    ctx: Context,
    *,
    data: Path,
    steps: int = 20_000,
    minutes: float | None = None,
    batch: int = 8,
    discriminator: str = "",
    stay: float = 0.0,
    mapping: bool = False,
    output: Path | None = None,
) -> int:
    """Train on `data`/content and `data`/style until `steps` in all, or `minutes` of this call; run again to resume.

    Images are squares, aligned as `align` does. `discriminator` names a published discriminator's weights to start
    from. `stay` weighs the squared distance, at an eighth of the size, from the original generator's image of the same
    latent. Writes the EMA generator in its own layout to `output`, and the 256 px head beside it where there is one.
    Raises: UserError when the generator's kind has no such training, or the discriminator another size (2).
    """
    kind = of_kind(ctx, KINDS, NAME)
    size, folder = ctx.profile.generator.size, ctx.run / NAME
    photos = {name: images.Folder(data / name, size) for name in COLLECTIONS}
    with init_distributed(ctx) as (process_group, ctx), lock_run(folder, process_group, NAME):
        if batch < (least := process_group.world_size):
            raise UserError(f"{NAME}: --batch is {batch}; expected at least {least}, one image per process", 2)
        setup = build_setup(ctx, kind, batch, discriminator, stay, mapping)
        recipe = origins.generator(ctx) | {"batch": batch, "stay": stay, "mapping": mapping, "seed": ctx.profile.seed}
        recipe |= {"discriminator_start": weights.sha256(discriminator) if discriminator else ""}
        settings: dict[str, Any] = {name: folder.identity() for name, folder in photos.items()}
        settings |= {"train.discriminator_learning_rate": ctx.profile.train.discriminator_learning_rate}
        state = State(
            folder / "checkpoint.safetensors",
            {"net": setup.net, "average": setup.ema, "discriminator": setup.discriminator},
            {"adam": setup.optimiser, "discriminator_adam": setup.discriminator_optimiser},
            recipe,
            settings,
        )
        state.resume()

        def saved(step: int) -> None:
            faces = _faces(setup, ctx.profile.seed)
            loop.picture("faces", faces)
            files.write_atomic(folder / "faces.png", images.encode(faces))

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
        numbers, num_ws = range(process_group.rank, batch, process_group.world_size), setup.net.num_ws
        with loop, Prefetcher(lambda step: sample_batch(photos, ctx.profile.seed, step, numbers, num_ws)) as prefetched:
            for step in loop:
                loop.tell(train_step(setup, prefetched[step], step, loop))
        if process_group.is_main:
            _write(ctx, kind, setup, state.step, output or folder / "generator.safetensors", data, photos)
    return 0


def sample_batch(photos: Mapping[str, images.Folder], seed: int, step: int, numbers: range, num_ws: int) -> TrainBatch:
    """The samples `numbers` of a step's batch: half are content, half style; half of each are mirrored."""
    real, z, cross = [], [], []
    for i in numbers:
        rng = np.random.default_rng([seed, step, i])
        folder = photos[COLLECTIONS[int(rng.integers(2))]]
        image = folder[int(rng.integers(len(folder)))]
        real.append(image[:, ::-1] if rng.random() < 0.5 else image)
        z.append(rng.standard_normal((2, 2, 512), dtype=np.float32))
        cross.append(np.where(rng.random(2) < MIXING, rng.integers(1, num_ws, 2), num_ws))
    return TrainBatch(np.stack(real), torch.from_numpy(np.stack(z)), torch.from_numpy(np.stack(cross)))


def latents(net: Any, z: Tensor, cross: Tensor) -> Tensor:
    """W+ [N, num_ws, 512] of z [N, 2, 512]: the first face's w before layer `cross` [N], the second's from it on."""
    w = net.map(z.flatten(0, 1)).unflatten(0, (-1, 2))
    first = torch.arange(net.num_ws, device=w.device) < cross[:, None]
    return torch.where(first[..., None], w[:, :1], w[:, 1:])


def train_step(setup: Setup, samples: TrainBatch, step: int, loop: Loop) -> dict[str, float]:
    """A step of the discriminator, then one of the generator; their losses, averaged over all processes."""
    device, batch = next(setup.net.parameters()).device, setup.batch
    real, z, cross = images.to_tensor(samples.real).to(device), samples.z.to(device), samples.cross.to(device)
    due = PENALTY_EVERY if step % PENALTY_EVERY == 0 else 0
    sums = (
        {"discriminator": 0.0, "adversarial": 0.0}
        | ({"r1": 0.0} if due else {})
        | ({"stay": 0.0} if setup.stay else {})
    )

    def add(name: str, value: Tensor, share: float) -> Tensor:
        sums[name] += float(value.detach()) * share
        return value * share

    chunks = [slice(i, i + CHUNK) for i in range(0, len(real), CHUNK)]
    setup.discriminator.requires_grad_(True)
    for part in chunks:
        x, share = real[part].requires_grad_(bool(due)), len(real[part]) / batch
        with torch.no_grad():
            y = setup.net(latents(setup.net, z[part, 0], cross[part, 0]))
        scores = setup.discriminator(x)
        loss = add("discriminator", adversarial.discriminator_loss(scores, setup.discriminator(y)), share)
        if due:
            loss = loss + due * add("r1", adversarial.r1(scores, [x], PENALTY), share)
        loss.backward()
    bad = advance(setup.discriminator_optimiser, loop.process_group)
    setup.discriminator.requires_grad_(False)
    for part in chunks:
        share = len(real[part]) / batch
        with torch.set_grad_enabled(setup.mapping):
            w = latents(setup.net, z[part, 1], cross[part, 1])
        y = setup.net(w)
        loss = add("adversarial", adversarial.generator_loss(setup.discriminator(y)), share)
        if setup.source is not None:
            with torch.no_grad():
                original = setup.source(latents(setup.source, z[part, 1], cross[part, 1]))
            loss = loss + setup.stay * add("stay", F.mse_loss(F.avg_pool2d(y, 8), F.avg_pool2d(original, 8)), share)
        loss.backward()
    if worse := advance(setup.optimiser, loop.process_group, rate=setup.rate * min(1.0, (step + 1) / WARM_UP)):
        bad = worse
    else:
        _update_ema(setup, step)
    loop.count(bad)
    return dict(zip(sums, loop.process_group.sum(sums.values()), strict=True))


@torch.no_grad()
def _update_ema(setup: Setup, step: int) -> None:
    """Move the EMA weights towards the generator's."""
    count = (step + 1) * setup.batch
    keep = 0.5 ** (setup.batch / min(HALF_LIFE, RISE * count))
    for ema, current in zip(setup.ema.parameters(), setup.net.parameters(), strict=True):
        ema.lerp_(current, 1 - keep)


def build_setup(ctx: Context, kind: Kind, batch: int, discriminator: str, stay: float, mapping: bool) -> Setup:
    """The run's networks and optimisers. Raises: UserError(2) when the discriminator has another size."""
    torch.manual_seed(ctx.profile.seed)
    settings, size = ctx.profile.train, ctx.profile.generator.size
    net: Any = generators.generator(ctx)
    ema = copy.deepcopy(net).requires_grad_(False)
    source = copy.deepcopy(ema) if stay else None
    net.requires_grad_(True)
    net.checkpointing = settings.checkpointing
    getattr(net, kind.mapping).requires_grad_(mapping)
    judge = (
        _published_discriminator(discriminator)
        if discriminator
        else ImageDiscriminator(
            size, base=settings.image_discriminator_base, top=max(128, settings.image_discriminator_base // 64)
        )
    )
    if judge.size != size:
        raise UserError(
            f"{NAME}: discriminator {discriminator} takes {judge.size} px, profile {ctx.profile.name} generates "
            f"{size} px; name another one with --discriminator",
            2,
        )
    judge.to(ctx.device)
    trained = [p for p in net.parameters() if p.requires_grad]
    lazy = PENALTY_EVERY / (PENALTY_EVERY + 1)
    return Setup(
        net,
        ema,
        source,
        judge,
        torch.optim.Adam(trained, lr=kind.rate, betas=(0.0, 0.99)),
        torch.optim.Adam(judge.parameters(), lr=settings.discriminator_learning_rate, betas=(0.0, 0.99**lazy)),
        kind.rate,
        batch,
        stay,
        mapping,
    )


def _published_discriminator(name: str) -> ImageDiscriminator:
    """The discriminator in registered weights, in a safetensors file, or in a file as its authors publish it."""
    if "/" in name and not name.endswith(".safetensors"):
        discriminators = [p for p in identify.read(Path(name)) if p.kind in ("stylegan2-discriminator", "sae-image")]
        if not discriminators:
            raise UserError(f"{name}: holds no image discriminator; expected the file of a StyleGAN2 training", 2)
        tensors = discriminators[0].tensors
    else:
        tensors = weights.tensors(name)
    try:
        return ImageDiscriminator.load(tensors)
    except ValueError as error:
        raise UserError(f"{name}: {error}; name other weights with --discriminator", 2) from error


@torch.no_grad()
def _faces(setup: Setup, seed: int) -> np.ndarray:
    """The EMA generator's images of some fixed latents, side by side: u8 [S, GRID * S, 3]."""
    net = setup.ema
    z = torch.from_numpy(np.random.default_rng([seed, GRID]).standard_normal((GRID, 512), dtype=np.float32))
    mean = net.mean_latent(1000)
    w = mean + 0.7 * (net.map(z.to(mean.device)) - mean)
    return np.concatenate([images.to_arrays(net(one[None]))[0] for one in w], 1)


def _write(
    ctx: Context, kind: Kind, setup: Setup, step: int, output: Path, data: Path, photos: Mapping[str, images.Folder]
) -> None:
    counts = " and ".join(f"{len(folder)} {name}" for name, folder in photos.items())
    meta = {
        "what": f"{ctx.profile.generator.kind} fine-tuned from {ctx.profile.generator.weights}",
        "steps": step,
        "source_sha256": weights.sha256(ctx.profile.generator.weights),
        "data": f"{counts} pictures of {data.name}",
        "command": f"hypernst {NAME} --data {data.name} --steps {step} --batch {setup.batch}",
    }
    lines = []
    for key, (ending, tensors) in kind.export(setup.ema, ctx, setup.mapping).items():
        place = output.with_name(f"{output.stem}{ending}.safetensors")
        checkpoint.save(place, tensors, meta)
        lines.append(f'{key} = "{weights.as_name(place)}"')
    print(f"{NAME}: {step} steps; for the profile: {', '.join(lines)}; its latents have to be recomputed")
