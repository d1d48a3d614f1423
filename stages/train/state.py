"""The state of the hypernetwork's training: networks, optimisers, step and phase; how it is built and started."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import nn

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.generators import interface
from models.generators.interface import Generator
from models.hypernetworks.hypernetwork import HyperNetwork
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import Train
from pipeline.progress import say
from pipeline.training import checkpoint, state
from pipeline.training.distributed import ProcessGroup
from stages.loaders import hypernetwork as hypernetworks

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


def build(ctx: Context, generator: Generator) -> State:
    """New networks and optimisers for the profile, on the device. The hypernetwork's deltas start at zero."""
    settings = ctx.profile.train
    torch.manual_seed(ctx.profile.seed)
    table = generator.layer_table()
    hyper, ema = (hypernetworks.new_hypernetwork(ctx, table).to(ctx.device) for _ in range(2))
    base = settings.image_discriminator_base
    image = ImageDiscriminator(ctx.profile.generator.size, base=base, top=max(128, base // 64)).to(ctx.device)
    patch = PatchDiscriminator(size=settings.patch, width=settings.patch_discriminator_width).to(ctx.device)
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
        settings={f"train.{name}": value for name, value in asdict(settings).items() if name not in SILENT},
        extra={"phase": PHASES[0], "skipped": 0},
    )


def start(
    ctx: Context, generator: Generator, shipped: bool, process_group: ProcessGroup, phase: str | None = None
) -> State:
    """The run's checkpoint if there is one, else the shipped or random weights; the same in all processes.

    A new run starts in `phase`. Without it, it starts in stylisation if its weights are trained on styles.
    Raises: UserError when the checkpoint is another profile's.
    """
    state = build(ctx, generator)
    if state.resume():
        if state.changed:
            say(f"train: resumes {path(ctx)} with changed settings: {state.changed}")
    else:
        if shipped:
            state.phase = hypernetworks.start(ctx, state.hyper)
        state.phase = phase or state.phase
        state.ema.load_state_dict(state.hyper.state_dict())
    for module in state.nets.values():
        process_group.broadcast_(module)
    return state


def enter_phase(state: State, settings: Train) -> int:
    """Switch to stylisation when reconstruction is over, freeze what the phase does not train, set the rates.

    Returns the first row of the layer table that the phase trains.
    Raises: UserError(2) when train.start_layer is no row of that table.
    """
    if state.phase == "reconstruct" and state.step >= settings.reconstruction_steps:
        state.phase = "stylize"
    try:
        row = trained_from(state, settings)
        state.hyper.train_only(None if state.phase == "reconstruct" else row)
    except ValueError as e:
        raise UserError(f"train.start_layer: {e}", 2) from e
    share = min(1.0, (state.step + 1) / settings.warm_up) if settings.warm_up else 1.0
    left = settings.reconstruction_steps + settings.stylization_steps - state.step
    if left < settings.cool_down:
        share *= 0.5 - 0.5 * math.cos(math.pi * max(0, left) / settings.cool_down)
    for optimiser, rate in (
        (state.optimiser, settings.learning_rate),
        (state.discriminator_optimiser, settings.discriminator_learning_rate),
    ):
        for group in optimiser.param_groups:
            group["lr"] = rate * share
    return row


def trained_from(state: State, settings: Train) -> int:
    """The first row of the layer table that the phase trains. Raises: ValueError when train.start_layer is no row."""
    return 0 if state.phase == "reconstruct" else interface.start_row(state.hyper.table, settings.start_layer)


def _adam(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], device: str
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=device != "mps")
