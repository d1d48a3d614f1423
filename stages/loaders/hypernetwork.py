"""The profile's hypernetwork: new, started from published weights, or trained."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from models import state_dicts
from models.generators import interface
from models.generators.interface import LayerEntry
from models.hypernetworks.hypernetwork import HyperNetwork
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import Train
from pipeline.training import checkpoint, state
from stages.loaders import origins
from stages.loaders.load import load


def new_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """An untrained hypernetwork of the profile's shape, with the profile's kind of heads."""
    s = ctx.profile.train
    ranks = {"channel": 0, "separable": s.rank}
    shared = {
        "condition_on_regions": s.mask_condition,
        "region_deltas": s.region_deltas,
        "checkpointing": s.checkpointing,
    }
    if s.heads == "hyperstyle":
        return RegionHyperStyle(table, **shared, project=s.project_content)
    if s.heads not in ranks:
        raise UserError(f"train.heads is {s.heads!r}; expected channel, separable or hyperstyle", 2)
    return HyperNetwork(table, width=s.width, rank=ranks[s.heads], **shared)


def start_row(settings: Train, table: Sequence[LayerEntry]) -> int:
    """The row of the layer table that stylisation trains from. Raises: UserError(2) when train.start_layer is none."""
    try:
        return interface.start_row(table, settings.start_layer)
    except ValueError as e:
        raise UserError(f"train.start_layer: {e}", 2) from e


def start_trunk(ctx: Context, hyper: HyperNetwork) -> str:
    """Give a fresh trunk of HyperStyle's the profile's ResNet34 if it is here. Returns the weights' name, or ""."""
    name = ctx.profile.train.trunk
    if not isinstance(hyper, RegionHyperStyle) or not name or not weights.local(name):
        return ""
    load(name, hyper.start_trunk)
    return name


def start(ctx: Context, hyper: HyperNetwork) -> str:
    """Give a new hypernetwork the profile's weights, if it names any. Returns the phase that training starts in.

    HyperStyle's published weights are not trained on styles: training then starts with reconstruction.
    """
    name = ctx.profile.train.weights
    if not name:
        return "reconstruct"
    if isinstance(hyper, RegionHyperStyle) and any(n.startswith("refinement_blocks.") for n in weights.names(name)):
        load(name, hyper.initialise)
        return "reconstruct"
    load(name, partial(_fill, hyper))
    return "stylize"


def trained_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """The EMA weights of the run's checkpoint if there is one, else the profile's weights; frozen.

    Raises: UserError when there are neither, or the run was trained with another generator than the profile's (2).
    """
    path = ctx.run / "checkpoint.safetensors"
    # What is loaded whole needs no random start; of HyperStyle's published weights a part is missing.
    with nullcontext() if ctx.profile.train.heads == "hyperstyle" else torch.device("meta"):
        hyper = new_hypernetwork(ctx, table)
    if path.exists():
        tensors, meta = checkpoint.load(path, "ema.")
        way_out = "name the --profile that it was trained with, or another --run"
        for name, old, new in state.differences(meta.get("recipe", {}), origins.generator(ctx)):
            raise UserError(
                f"{path}: was trained with {name} {old}, profile {ctx.profile.name} has {new}; {way_out}", 2
            )
        try:
            _fill(hyper, tensors)
        except ValueError as e:
            raise UserError(f"{path}: {e}, {ctx.profile.name}; {way_out}", 2) from e
    elif ctx.profile.train.weights:
        start(ctx, hyper)
    else:
        raise _missing(ctx)
    return hyper.requires_grad_(False).eval().to(ctx.device)


def _missing(ctx: Context) -> UserError:
    path = ctx.run / "checkpoint.safetensors"
    return UserError(
        f"{path}: is missing, and profile {ctx.profile.name} has no train.weights; run `hypernst train` first"
    )


def _fill(hyper: HyperNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Load all tensors; on the meta device, where there is no memory to copy them to, they become the parameters."""
    state = {name: tensor.float() for name, tensor in tensors.items()}
    try:
        hyper.load_state_dict(state, assign=next(hyper.parameters()).is_meta)
    except RuntimeError:  # not before: what an older file lacks has a default in some modules
        state_dicts.check(state_dicts.shapes(hyper), state, "a hypernetwork of this profile's shape")
        raise


def sha256(ctx: Context) -> str:
    """The sha256 of the file that `trained_hypernetwork` takes. Raises: UserError when there is none."""
    path = ctx.run / "checkpoint.safetensors"
    if not path.exists() and not ctx.profile.train.weights:
        raise _missing(ctx)
    return weights.sha256(weights.as_name(path) if path.exists() else ctx.profile.train.weights)


def origin(ctx: Context) -> str:
    """Which weights `trained_hypernetwork` takes, in a few words: their file or name, steps, sha256 and profile."""
    path, name = ctx.run / "checkpoint.safetensors", ctx.profile.train.weights
    if path.exists():
        told = [
            f"step {checkpoint.meta(path).get('step', '?')}",
            f"sha256 {weights.sha256(weights.as_name(path))[:12]}",
        ]
        name = str(path)
    elif name and weights.local(name):
        told = [f"sha256 {weights.sha256(name)[:12]}"]
    else:
        name, told = name or "untrained weights", []
    return f"{name} ({', '.join([*told, f'profile {ctx.profile.name}'])})"
