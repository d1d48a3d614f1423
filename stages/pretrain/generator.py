"""Fine-tune the profile's generator on portraits and artistic portraits, so that it can paint both (section 3.4).

StyleGAN2's own training: non-saturating loss, lazy R1, style mixing, an average of the weights. The mapping network
stays as it is unless asked: the encoder, the average latent and the semantic boundaries all live in its W space, and
so go on meaning what they meant; only how W is painted changes. With a mapping that trains too, latents drift, and
the encoder has to be trained again in any case. Noise maps are the generator's fixed ones, as everywhere else here.
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
from pipeline.errors import Fault
from pipeline.training import checkpoint
from pipeline.training.distributed import joined
from pipeline.training.loop import Loop
from pipeline.training.prefetch import Ahead
from pipeline.training.state import State, advance
from stages.loaders import generator as networks
from stages.loaders.load import of_kind
from stages.pretrain.generator_kinds import KINDS, Kind
from stages.weights_import import identify

NAME = "finetune-generator"
SAVE_EVERY = 200
CHUNK = 4  # pictures that go through the networks at once
MIXING = 0.9  # of the latents are of two faces
PENALTY, PENALTY_EVERY = 10.0, 16
WARM_UP = 200  # steps in which the generator's rate rises: a new critic knows nothing yet
HALF_LIFE, RISE = 10_000, 0.05  # of the average, in pictures; at first a share of those seen, as in StyleGAN2-ADA
GRID = 8


@dataclass(frozen=True)
class Draws:
    """A step's samples: pictures u8 [N, S, S, 3], z [N, 2, 2, 512] (for critic and generator, two faces each) and the
    slot [N, 2] from which the second face's latent is used."""

    real: np.ndarray
    z: Tensor
    cross: Tensor


@dataclass(frozen=True)
class Course:
    """The networks of a run and what is asked of them; `source` is the untouched generator, None if nothing is."""

    net: Any
    average: Any
    source: Any
    critic: ImageDiscriminator
    optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
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
    critic: str = "",
    stay: float = 0.0,
    mapping: bool = False,
    output: Path | None = None,
) -> int:
    """Train on `data`/content and `data`/style until `steps` in all, or `minutes` of this call; the same goes on.

    Pictures are squares, aligned as `align` does. `critic` names a published discriminator's weights to start from;
    `stay` weighs the squared distance, at an eighth of the size, from what the source paints of the same latent.
    Writes the averaged generator in its own layout to `output`, and the 256 px head beside it where there is one.
    Raises: Fault for a generator without such a training, and for a critic of another size (2).
    """
    kind = of_kind(ctx, KINDS, NAME)
    size, folder = ctx.profile.generator.size, ctx.run / NAME
    photos = {name: images.Folder(data / name, size) for name in COLLECTIONS}
    with joined(ctx) as (team, ctx):
        if batch < team.count:
            raise Fault(f"{NAME}: a batch of {batch} for {team.count} processes; expected one picture a process", 2)
        course = _course(ctx, kind, batch, critic, stay, mapping)
        recipe = {
            "generator": weights.sha256(ctx.profile.generator.weights),
            "batch": batch,
            "critic": critic,
            "stay": stay,
            "mapping": mapping,
            "seed": ctx.profile.seed,
        }
        state = State(
            folder / "checkpoint.safetensors",
            {"net": course.net, "average": course.average, "critic": course.critic},
            {"adam": course.optimiser, "critic_adam": course.critic_optimiser},
            recipe,
        )
        state.resume()

        def save(step: int) -> None:
            state.save(step, loop.seconds)
            faces = _faces(course, ctx.profile.seed)
            loop.picture("faces", faces)
            files.write_atomic(folder / "faces.png", images.encode(faces))

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
        with loop, Ahead(lambda step: draw(photos, ctx.profile.seed, step, own, course.net.slots)) as ahead:
            for step in loop:
                loop.tell(train_step(course, ahead[step], step, loop))
        if team.first:
            _write(ctx, kind, course, state.step, output or folder / "generator.safetensors", data, photos)
    return 0


def draw(photos: Mapping[str, images.Folder], seed: int, step: int, own: range, slots: int) -> Draws:
    """The samples numbered `own` of a step's batch; half of them are content, half style, half of each mirrored."""
    real, z, cross = [], [], []
    for i in own:
        rng = np.random.default_rng([seed, step, i])
        folder = photos[COLLECTIONS[int(rng.integers(2))]]
        picture = folder[int(rng.integers(len(folder)))]
        real.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
        z.append(rng.standard_normal((2, 2, 512), dtype=np.float32))
        cross.append(np.where(rng.random(2) < MIXING, rng.integers(1, slots, 2), slots))
    return Draws(np.stack(real), torch.from_numpy(np.stack(z)), torch.from_numpy(np.stack(cross)))


def latents(net: Any, z: Tensor, cross: Tensor) -> Tensor:
    """W+ [N, slots, 512] of z [N, 2, 512]: the first face's w before slot `cross` [N], the second's from there on."""
    w = net.map(z.flatten(0, 1)).unflatten(0, (-1, 2))
    first = torch.arange(net.slots, device=w.device) < cross[:, None]
    return torch.where(first[..., None], w[:, :1], w[:, 1:])


def train_step(course: Course, draws: Draws, step: int, loop: Loop) -> dict[str, float]:
    """A step of the critic, then one of the generator; their losses, means over all processes' samples."""
    device, batch = next(course.net.parameters()).device, course.batch
    real, z, cross = images.to_tensor(draws.real).to(device), draws.z.to(device), draws.cross.to(device)
    due = PENALTY_EVERY if step % PENALTY_EVERY == 0 else 0
    sums = {"critic": 0.0, "adversarial": 0.0} | ({"r1": 0.0} if due else {}) | ({"stay": 0.0} if course.stay else {})

    def add(name: str, value: Tensor, share: float) -> Tensor:
        sums[name] += float(value.detach()) * share
        return value * share

    chunks = [slice(i, i + CHUNK) for i in range(0, len(real), CHUNK)]
    course.critic.requires_grad_(True)
    for part in chunks:
        x, share = real[part].requires_grad_(bool(due)), len(real[part]) / batch
        with torch.no_grad():
            y = course.net(latents(course.net, z[part, 0], cross[part, 0]))
        scores = course.critic(x)
        loss = add("critic", adversarial.critic_loss(scores, course.critic(y)), share)
        if due:
            loss = loss + due * add("r1", adversarial.r1(scores, [x], PENALTY), share)
        loss.backward()
    bad = advance(course.critic_optimiser, loop.team)
    course.critic.requires_grad_(False)
    for part in chunks:
        share = len(real[part]) / batch
        with torch.set_grad_enabled(course.mapping):
            w = latents(course.net, z[part, 1], cross[part, 1])
        y = course.net(w)
        loss = add("adversarial", adversarial.generator_loss(course.critic(y)), share)
        if course.source is not None:
            with torch.no_grad():
                before = course.source(latents(course.source, z[part, 1], cross[part, 1]))
            loss = loss + course.stay * add("stay", F.mse_loss(F.avg_pool2d(y, 8), F.avg_pool2d(before, 8)), share)
        loss.backward()
    if worse := advance(course.optimiser, loop.team, rate=course.rate * min(1.0, (step + 1) / WARM_UP)):
        bad = worse
    else:
        _follow(course, step)
    loop.count(bad)
    return dict(zip(sums, loop.team.total(sums.values()), strict=True))


@torch.no_grad()
def _follow(course: Course, step: int) -> None:
    """Let the average follow the generator."""
    seen = (step + 1) * course.batch
    keep = 0.5 ** (course.batch / min(HALF_LIFE, RISE * seen))
    for average, current in zip(course.average.parameters(), course.net.parameters(), strict=True):
        average.lerp_(current, 1 - keep)


def _course(ctx: Context, kind: Kind, batch: int, critic: str, stay: float, mapping: bool) -> Course:
    torch.manual_seed(ctx.profile.seed)
    settings, size = ctx.profile.train, ctx.profile.generator.size
    net: Any = networks.generator(ctx)
    average = copy.deepcopy(net).requires_grad_(False)
    source = copy.deepcopy(average) if stay else None
    net.requires_grad_(True)
    net.checkpointing = settings.checkpointing
    getattr(net, kind.mapping).requires_grad_(mapping)
    judge = (
        _published_critic(critic)
        if critic
        else ImageDiscriminator(size, base=settings.image_critic_base, top=max(128, settings.image_critic_base // 64))
    )
    if judge.size != size:
        raise Fault(f"{NAME}: critic {critic} judges {judge.size} px, profile {ctx.profile.name} paints {size}", 2)
    judge.to(ctx.device)
    trained = [p for p in net.parameters() if p.requires_grad]
    lazy = PENALTY_EVERY / (PENALTY_EVERY + 1)
    return Course(
        net,
        average,
        source,
        judge,
        torch.optim.Adam(trained, lr=kind.rate, betas=(0.0, 0.99)),
        torch.optim.Adam(judge.parameters(), lr=settings.critic_learning_rate, betas=(0.0, 0.99**lazy)),
        kind.rate,
        batch,
        stay,
        mapping,
    )


def _published_critic(name: str) -> ImageDiscriminator:
    """The discriminator in registered weights, in a safetensors file, or in a file as its authors publish it."""
    if "/" in name and not name.endswith(".safetensors"):
        critics = [p for p in identify.read(Path(name)) if p.kind in ("stylegan2-critic", "sae-image")]
        if not critics:
            raise Fault(f"{name}: holds no image discriminator; expected a StyleGAN2 training's file", 2)
        tensors = critics[0].tensors
    else:
        tensors = weights.tensors(name)
    try:
        return ImageDiscriminator.load(tensors)
    except ValueError as error:
        raise Fault(f"{name}: {error}; name other weights with --critic", 2) from error


@torch.no_grad()
def _faces(course: Course, seed: int) -> np.ndarray:
    """What the averaged generator paints of some fixed latents, side by side: u8 [S, GRID * S, 3]."""
    net = course.average
    z = torch.from_numpy(np.random.default_rng([seed, GRID]).standard_normal((GRID, 512), dtype=np.float32))
    mean = net.mean_latent(1000)
    w = mean + 0.7 * (net.map(z.to(mean.device)) - mean)
    return np.concatenate([images.to_arrays(net(one[None]))[0] for one in w], 1)


def _write(
    ctx: Context, kind: Kind, course: Course, step: int, output: Path, data: Path, photos: Mapping[str, images.Folder]
) -> None:
    counts = " and ".join(f"{len(folder)} {name}" for name, folder in photos.items())
    meta = {
        "what": f"{ctx.profile.generator.kind} fine-tuned from {ctx.profile.generator.weights}",
        "steps": step,
        "source_sha256": weights.sha256(ctx.profile.generator.weights),
        "data": f"{counts} pictures of {data.name}",
        "command": f"hypernst {NAME} --data {data.name} --steps {step} --batch {course.batch}",
    }
    lines = []
    for key, (ending, tensors) in kind.export(course.average, ctx, course.mapping).items():
        place = output.with_name(f"{output.stem}{ending}.safetensors")
        checkpoint.save(place, tensors, meta)
        lines.append(f'{key} = "{weights.as_name(place)}"')
    print(f"{NAME}: {step} steps; for the profile: {', '.join(lines)}; its latents have to be made anew")
