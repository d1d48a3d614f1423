"""The profile's frozen networks, loaded: where the weights registry and the models meet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models import hypernetwork
from models.hypernetwork import HyperNetwork
from models.inverter import Inverter
from models.mobilestylegan import LayerEntry, MobileStyleGAN
from models.vgg import Trunk
from pipeline import checkpoint, weights
from pipeline.context import Context
from pipeline.errors import Fault


def generator(ctx: Context, size: int | None = None) -> MobileStyleGAN:
    """The frozen generator at the profile's size, or at 1024 px."""
    settings = ctx.profile.generator
    if settings.kind != "mobilestylegan":
        raise Fault(f"generator.kind is {settings.kind!r}; expected 'mobilestylegan'", 2)
    head = None if size == 1024 else weights.tensors(settings.head)
    return MobileStyleGAN.load(weights.tensors(settings.weights), head).to(ctx.device)


class Inversion:
    """The inverter with all it needs: call it on pictures [N, 3, 256, 256] for latents [N, 18, 512]."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        self.trunk = Trunk("alex", weights.tensors("lpips-alex")).to(ctx.device)
        self.net = Inverter.load(weights.tensors(ctx.profile.inverter.weights)).to(ctx.device)
        self.passes = ctx.profile.inverter.passes
        with torch.no_grad():
            self.start = self.generator(self.net.mean[None]).clamp(-1, 1)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.net(x, self.trunk, self.generator, self.passes, self.start)


def new_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """An untrained hypernetwork of the profile's shape."""
    s = ctx.profile.train
    return HyperNetwork(table, width=s.width, rank=s.rank, checkpointing=s.checkpointing)


def trained_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """The run's averaged weights if the run has a checkpoint, else the shipped ones; frozen."""
    path = ctx.run / "checkpoint.safetensors"
    if path.exists():
        tensors = {n.removeprefix("ema."): t for n, t in checkpoint.load(path)[0].items() if n.startswith("ema.")}
    else:
        tensors = weights.tensors(ctx.profile.train.weights)
    s = ctx.profile.train
    return hypernetwork.load(tensors, table, width=s.width, rank=s.rank).to(ctx.device)
