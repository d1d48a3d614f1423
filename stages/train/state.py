"""What a training of the hypernetwork holds: networks, optimisers, where it stands; how that is started."""

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
# Settings that change nothing about what is learnt; a change of the others is told.
UNTOLD = {"reconstruction_steps", "stylization_steps", "validate_every", "checkpointing", "micro_batch"}


class State(state.State):
    """All that a checkpoint holds; `phase` is one of PHASES, `skipped` counts steps that were not finite."""

    @property
    def hyper(self) -> HyperNetwork:
        """The hypernetwork in training."""
        return cast(HyperNetwork, self.nets["hyper"])

    @property
    def ema(self) -> HyperNetwork:
        """Its averaged weights, which results are rendered with."""
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
        """Steps so far that were not finite and changed nothing."""
        return int(self.extra["skipped"])

    @skipped.setter
    def skipped(self, count: int) -> None:
        self.extra["skipped"] = count


def path(ctx: Context) -> Path:
    """The run's checkpoint."""
    return ctx.run / "checkpoint.safetensors"


def step_of(ctx: Context) -> int:
    """How many steps the run has taken."""
    return int(checkpoint.meta(path(ctx))["step"]) if path(ctx).exists() else 0


def build(ctx: Context, generator: Generator) -> State:
    """New networks and optimisers for the profile, on the device; the hypernetwork's heads start at zero deltas."""
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
        settings={f"train.{name}": value for name, value in asdict(settings).items() if name not in UNTOLD},
        extra={"phase": PHASES[0], "skipped": 0},
    )


def start(
    ctx: Context, generator: Generator, shipped: bool, process_group: ProcessGroup, phase: str | None = None
) -> State:
    """The run's checkpoint if there is one, else the shipped or fresh weights, the same in all processes.

    A new run starts in `phase`, if given, and in stylisation only from weights that know of styles otherwise.

    Raises: UserError when the checkpoint is another profile's.
    """
    found = build(ctx, generator)
    if found.resume():
        if found.changed:
            say(f"train: resumes {path(ctx)} with changed settings: {found.changed}")
    else:
        if shipped:
            found.phase = hypernetworks.start(ctx, found.hyper)
        found.phase = phase or found.phase
        found.ema.load_state_dict(found.hyper.state_dict())
    for module in found.nets.values():
        process_group.broadcast_(module)
    return found


def enter_phase(state: State, settings: Train) -> int:
    """Switch to stylisation when its time has come, freeze what the phase does not train, set the rates.

    Returns the first row of the layer table that the phase trains. Raises: UserError(2) for a start layer past its end.
    """
    if state.phase == "reconstruct" and state.step >= settings.reconstruction_steps:
        state.phase = "stylize"
    try:
        row = 0 if state.phase == "reconstruct" else interface.start_row(state.hyper.table, settings.start_layer)
        state.hyper.train_only(None if state.phase == "reconstruct" else row)
    except ValueError as e:
        raise UserError(f"train.start_layer: {e}", 2) from e
    share = min(1.0, (state.step + 1) / settings.warm_up) if settings.warm_up else 1.0
    for optimiser, rate in (
        (state.optimiser, settings.learning_rate),
        (state.discriminator_optimiser, settings.discriminator_learning_rate),
    ):
        for group in optimiser.param_groups:
            group["lr"] = rate * share
    return row


def _adam(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], device: str
) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=device != "mps")
