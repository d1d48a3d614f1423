"""What a training of the hypernetwork holds: networks, optimisers, where it stands; how that is started and kept."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.generators import interface
from models.generators.interface import Generator
from models.hypernetworks.hypernetwork import HyperNetwork
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.profile import Train
from pipeline.progress import say
from pipeline.training import checkpoint
from pipeline.training.distributed import Team
from stages.loaders import hypernetwork as networks

PHASES = ("reconstruct", "stylize")
FREE = {"reconstruction_steps", "stylisation_steps", "validate_every", "checkpointing", "micro_batch"}  # may change


@dataclass
class State:
    """All that a checkpoint holds; `phase` is one of PHASES, `skipped` counts steps that were not finite."""

    hyper: HyperNetwork
    ema: HyperNetwork
    image_critic: ImageDiscriminator
    patch_critic: PatchDiscriminator
    optimiser: torch.optim.Optimizer
    critic_optimiser: torch.optim.Optimizer
    step: int = 0
    phase: str = "reconstruct"
    skipped: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """The networks by the prefix of their tensors in a checkpoint."""
        return {
            "hyper": self.hyper,
            "ema": self.ema,
            "image_critic": self.image_critic,
            "patch_critic": self.patch_critic,
        }


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
    hyper, ema = (networks.new_hypernetwork(ctx, table).to(ctx.device) for _ in range(2))
    size, base = ctx.profile.generator.size, settings.image_critic_base
    image_critic = ImageDiscriminator(size, base=base, top=max(128, base // 64)).to(ctx.device)
    patch_critic = PatchDiscriminator(size=settings.patch, width=settings.patch_critic_width).to(ctx.device)
    critics = [*image_critic.parameters(), *patch_critic.parameters()]
    return State(
        hyper,
        ema.requires_grad_(False),
        image_critic,
        patch_critic,
        _adam(hyper.parameters(), settings.learning_rate, (0.9, 0.99), ctx.device),
        _adam(critics, settings.critic_learning_rate, (0.0, 0.99), ctx.device),
    )


def start(ctx: Context, generator: Generator, shipped: bool, team: Team, phase: str | None = None) -> State:
    """The run's checkpoint if there is one, else the shipped or fresh weights, the same in all processes.

    A new run starts in `phase`, if given, and in stylisation only from weights that know of styles otherwise.

    Raises: Fault when the checkpoint is another profile's.
    """
    state = build(ctx, generator)
    if path(ctx).exists():
        _load(ctx, state)
    else:
        if shipped:
            state.phase = networks.start(ctx, state.hyper)
        state.phase = phase or state.phase
        state.ema.load_state_dict(state.hyper.state_dict())
    for module in state.modules().values():
        team.share(module)
    return state


def save(ctx: Context, state: State) -> None:
    """Write the whole state to the run's checkpoint, atomically."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in state.modules().items():
        tensors |= {f"{prefix}.{n}": t for n, t in module.state_dict().items()}
    tensors |= checkpoint.optimiser_tensors(state.optimiser, "adam")
    tensors |= checkpoint.optimiser_tensors(state.critic_optimiser, "critic_adam")
    meta = {
        "step": state.step,
        "phase": state.phase,
        "skipped": state.skipped,
        "profile": ctx.profile.name,
        "seed": ctx.profile.seed,
        "train": asdict(ctx.profile.train),
    }
    checkpoint.save(path(ctx), tensors, meta)


def enter_phase(state: State, settings: Train) -> int:
    """Switch to stylisation when its time has come, freeze what the phase does not train, set the rates.

    Returns the first row of the layer table that the phase trains. Raises: Fault(2) for a start layer past its end.
    """
    if state.phase == "reconstruct" and state.step >= settings.reconstruction_steps:
        state.phase = "stylize"
    try:
        row = 0 if state.phase == "reconstruct" else interface.start_row(state.hyper.table, settings.start_layer)
        state.hyper.train_only(None if state.phase == "reconstruct" else row)
    except ValueError as e:
        raise Fault(f"train.start_layer: {e}", 2) from e
    share = min(1.0, (state.step + 1) / settings.warm_up) if settings.warm_up else 1.0
    for optimiser, rate in (
        (state.optimiser, settings.learning_rate),
        (state.critic_optimiser, settings.critic_learning_rate),
    ):
        for group in optimiser.param_groups:
            group["lr"] = rate * share
    return row


def _adam(parameters: object, rate: float, betas: tuple[float, float], device: str) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, betas=betas, fused=device != "mps")  # type: ignore[arg-type]


def _load(ctx: Context, state: State) -> None:
    tensors, meta = checkpoint.load(path(ctx))
    ours, theirs = asdict(ctx.profile.train), meta.get("train", {})
    changed = {
        name: (theirs[name], value)
        for name, value in ours.items()
        if name in theirs and theirs[name] != value and name not in FREE
    }
    told = "; ".join(f"train.{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
    for prefix, module in state.modules().items():
        own = {n.removeprefix(prefix + "."): t for n, t in tensors.items() if n.startswith(prefix + ".")}
        try:
            module.load_state_dict(own)
        except RuntimeError as e:
            raise Fault(
                f"{path(ctx)}: made with other settings ({told or meta.get('profile')}) than this profile's; "
                "give it back its profile, or choose another --run",
                2,
            ) from e
    if told:
        say(f"train: goes on from {path(ctx)} with changed settings: {told}")
    checkpoint.restore_optimiser(state.optimiser, tensors, "adam")
    checkpoint.restore_optimiser(state.critic_optimiser, tensors, "critic_adam")
    state.step, state.phase, state.skipped = meta["step"], meta["phase"], meta["skipped"]
