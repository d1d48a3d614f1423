"""The state of the hypernetwork's training: networks, optimisers, step and phase; how it is built and started."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.generators.interface import Generator
from models.hypernetworks.hypernetwork import HyperNetwork, side_by_side
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from models.losses.objectives import Batch
from pipeline.context import Context
from pipeline.profile import Train
from pipeline.progress import say
from pipeline.shards.batches import collate
from pipeline.shards.indexed import Samples
from pipeline.training import checkpoint, state
from pipeline.training.distributed import ProcessGroup
from stages.loaders import discriminators as discriminator_loaders
from stages.loaders import hypernetwork as hypernetworks
from stages.train import data

MEASURED, CHUNK = 64, 8  # images of a collection that a fresh network is measured on, and at once
FUSED = ("cpu", "cuda")  # devices whose Adam takes all parameters at once
PHASES = ("reconstruct", "stylize")
# settings that do not change what is learnt; a change of any other one is reported
SILENT = {"reconstruction_steps", "stylization_steps", "validate_every", "checkpointing", "micro_batch"}


class State(state.State):
    """All that a checkpoint holds."""

    @property
    def hyper(self) -> HyperNetwork:
        """The hypernetwork in training."""
        return cast(HyperNetwork, self.nets["hyper"])

    @property
    def ema(self) -> HyperNetwork:
        """The hypernetwork with the EMA weights; results are rendered with it."""
        return cast(HyperNetwork, self.nets["ema"])

    @property
    def image_discriminator(self) -> ImageDiscriminator:
        """Judges whole images."""
        return cast(ImageDiscriminator, self.nets["image_discriminator"])

    @property
    def patch_discriminator(self) -> PatchDiscriminator:
        """Judges whether patches share a region's style."""
        return cast(PatchDiscriminator, self.nets["patch_discriminator"])

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """The hypernetwork's."""
        return self.optimisers["adam"]

    @property
    def discriminator_optimiser(self) -> torch.optim.Optimizer:
        """Both discriminators'."""
        return self.optimisers["discriminator_adam"]

    @property
    def phase(self) -> str:
        """One of PHASES."""
        return str(self.extra["phase"])

    @phase.setter
    def phase(self, phase: str) -> None:
        self.extra["phase"] = phase

    @property
    def phase_step(self) -> int:
        """The number of steps that the run has taken in its phase."""
        return self.step - int(self.extra["phase_start"])

    def averaged(self, share: float) -> float:
        """The share of the average that a step keeps: `share`, or less in the first steps of a fresh network."""
        return min(share, (1 + self.step) / (10 + self.step)) if self.extra["fresh"] else share

    @property
    def skipped(self) -> int:
        """The number of steps that were not finite and changed nothing."""
        return int(self.extra["skipped"])

    @skipped.setter
    def skipped(self, count: int) -> None:
        self.extra["skipped"] = count


def path(ctx: Context) -> Path:
    """The run's checkpoint."""
    return ctx.run / "checkpoint.safetensors"


def step_of(ctx: Context) -> int:
    """The number of steps that the run has taken."""
    return int(checkpoint.meta(path(ctx))["step"]) if path(ctx).exists() else 0


def build(
    ctx: Context, generator: Generator, made: Mapping[str, Any] | None = None, data: Mapping[str, str] | None = None
) -> State:
    """New networks and optimisers for the profile, on the device. The hypernetwork's deltas start at zero.

    `made` says what the generator and the samples' latents and codes were made with, `data` which samples there are.
    """
    settings = ctx.profile.train
    torch.manual_seed(ctx.profile.seed)
    table = generator.layer_table()
    hyper, ema = (hypernetworks.new_hypernetwork(ctx, table).to(ctx.device) for _ in range(2))
    image = discriminator_loaders.image_discriminator(ctx).to(ctx.device)
    patch = discriminator_loaders.patch_discriminator(ctx).to(ctx.device)
    discriminators = [*image.parameters(), *patch.parameters()]
    return State(
        path(ctx),
        {
            "hyper": hyper,
            "ema": ema.requires_grad_(False),
            "image_discriminator": image,
            "patch_discriminator": patch,
        },
        {
            "adam": _adam(hyper.parameters(), settings.learning_rate, (0.9, 0.99), ctx.device),
            "discriminator_adam": _adam(discriminators, settings.discriminator_learning_rate, (0.0, 0.99), ctx.device),
        },
        recipe={"seed": ctx.profile.seed} | dict(made or {}),
        settings={f"train.{name}": value for name, value in asdict(settings).items() if name not in SILENT}
        | dict(data or {}),
        extra={"phase": PHASES[0], "phase_start": 0, "skipped": 0, "fresh": False},
    )


def start(
    ctx: Context,
    state: State,
    generator: Generator,
    shipped: bool,
    process_group: ProcessGroup,
    phase: str | None = None,
) -> State:
    """`state` with the run's checkpoint if there is one, else the shipped or random weights; the same in all processes.

    A new run starts in `phase`. Without it, it starts in stylisation if its weights are trained on styles. If they are
    not, what the networks see is measured on the shards first: images for a new trunk, and style codes.
    Raises: UserError when the checkpoint is another profile's.
    """
    if not state.resume():
        if shipped and ctx.profile.train.weights:
            state.phase = hypernetworks.start(ctx, state.hyper)
        else:
            start_trunk(ctx, generator, state.hyper)
        if state.phase == PHASES[0]:
            state.extra["fresh"] = True
            measure_codes(ctx, state.hyper)
        state.phase = phase or state.phase
        state.ema.load_state_dict(state.hyper.state_dict())
    for module in state.nets.values():
        process_group.broadcast_(module)
    return state


@torch.no_grad()
def start_trunk(ctx: Context, generator: Generator, hyper: HyperNetwork) -> None:
    """Start HyperStyle's trunk from the profile's ResNet34, and measure its normalisation on the first images.

    With the statistics of a new network what differs between images would be lost in it. Other networks have none.
    """
    if not isinstance(hyper, RegionHyperStyle):
        return
    name = hypernetworks.start_trunk(ctx, hyper)
    say(f"train: the trunk starts from {name or 'random weights'}; its normalisation is measured")
    collections = ("content", "style") if ctx.profile.train.reconstruct_styles else ("content",)
    hyper.measure(side_by_side(batch.image, generator(batch.latent).clamp(-1, 1)) for batch in _first(ctx, collections))


@torch.no_grad()
def measure_codes(ctx: Context, hyper: HyperNetwork) -> None:
    """Centre and scale a fresh network's codes by those of the first images of both collections."""
    hyper.space.measure(torch.cat([batch.codes.flatten(0, 1) for batch in _first(ctx, ("content", "style"))]))


def _first(ctx: Context, collections: Sequence[str]) -> Iterator[Batch]:
    """The first training samples of each collection, in batches."""
    for name in collections:
        samples = Samples(ctx.training_shards, name, "train")
        chosen = range(min(MEASURED, len(samples)))
        for part in (chosen[first : first + CHUNK] for first in chosen[::CHUNK]):
            yield data.to_batch(collate((samples.fields(i) for i in part), len(part)), ctx.device)


def enter_phase(state: State, settings: Train) -> int:
    """Switch to stylisation when reconstruction is over, freeze what the phase does not train, set the rates.

    Rates rise anew in each phase, as fresh discriminators know nothing; the hypernetwork's after their first steps.
    What the optimiser holds of frozen parameters is dropped.
    Returns the first row of the layer table that the phase trains.
    Raises: UserError(2) when train.start_layer is no row of that table.
    """
    if state.phase == "reconstruct" and state.step >= settings.reconstruction_steps:
        state.phase, state.extra["phase_start"] = "stylize", state.step
    row = trained_from(state, settings)
    state.hyper.train_only(None if state.phase == "reconstruct" else row)
    alone = settings.discriminators_first if state.phase == "stylize" else 0
    left, end = settings.reconstruction_steps + settings.stylization_steps - state.step, 1.0
    if settings.cool_down and left < settings.cool_down:
        end = 0.5 - 0.5 * math.cos(math.pi * max(0, left) / settings.cool_down)
    for optimiser, rate, step in (
        (state.optimiser, settings.learning_rate, max(0, state.phase_step - alone)),
        (state.discriminator_optimiser, settings.discriminator_learning_rate, state.phase_step),
    ):
        for group in optimiser.param_groups:
            group["lr"] = rate * end * (min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0)
            for p in group["params"]:
                if not p.requires_grad:
                    optimiser.state.pop(p, None)
    return row


def trained_from(state: State, settings: Train) -> int:
    """The first row of the layer table that the phase trains. Raises: UserError(2) when train.start_layer is no row."""
    row = hypernetworks.start_row(settings, state.hyper.table)  # said at once, not when reconstruction is over
    return 0 if state.phase == "reconstruct" else row


def _adam(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], device: str
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=device.split(":")[0] in FUSED)
