"""The inversion of the profile's kind of generator: images to W+ latents."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders import e4e
from models.encoders.face_loss import FaceLoss
from models.encoders.optimisation import optimise
from models.encoders.portable import PortableEncoder
from models.generators.interface import Generator
from models.generators.latent_renderer import LatentRenderer, narrow_type
from models.metrics.identity import Identity
from models.metrics.lpips import LPIPS
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.progress import pause
from stages.loaders.generator import average_latent, generator
from stages.loaders.load import drawn, load, of_kind


class Invert(Protocol):
    """Turns images [N, 3, 256, 256] in [-1, 1] into latents [N, num_ws, 512] of its `generator`."""

    generator: Generator

    def __call__(self, x: Tensor) -> Tensor:
        """Latents of images."""


def inversion(ctx: Context) -> Invert:
    """The inverter that belongs to the profile's kind of generator; without weights one that knows nothing."""
    return of_kind(ctx, INVERSIONS, "inversion")(ctx) if ctx.profile.inverter.weights else RandomInversion(ctx)


class RandomInversion:
    """In place of an inverter: takes the image's colours for z, so that alike images have alike latents."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        self.spread = drawn(ctx, lambda: torch.nn.Linear(3 * 4 * 4, 512)).to(ctx.device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        w = self.generator.map(self.spread(F.adaptive_avg_pool2d(x, 4).flatten(1)))
        return w[:, None].expand(-1, self.generator.num_ws, -1)


class PortableInversion:
    """The portable encoder with all it needs: its iterations, then steps of optimisation, image by image."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        self.net = load(ctx.profile.inverter.weights, PortableEncoder.load).to(ctx.device)
        self.lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
        self.passes, self.steps = ctx.profile.inverter.iterations, ctx.profile.inverter.steps
        with torch.no_grad():
            self.start = self.generator(self.net.mean[None]).clamp(-1, 1)
        if self.steps:
            if self.net.metric is None:
                raise UserError(
                    f"{ctx.profile.inverter.weights} has no metric of W+, which inverter.steps needs; train it with "
                    "`hypernst train-inverter`, or set the steps to 0"
                )
            dtype, self.metric = narrow_type(ctx.device), self.net.metric
            net: Any = self.generator
            self.renderer = LatentRenderer(net, dtype)
            self.loss = FaceLoss(LPIPS("vgg", weights.tensors("lpips-vgg")).to(ctx.device), dtype)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        if not self.steps:
            return self._encode(x, self.generator)
        return torch.cat([self._optimise(image) for image in x.split(1)])

    def _encode(self, x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        return self.net(x, self.lpips.trunk, draw, self.passes, self.start)

    def _optimise(self, x: Tensor) -> Tensor:
        target = self.loss.target(x)

        def loss(w: Tensor) -> Tensor:
            pause()
            return self.loss(self.renderer(w), target)

        return optimise(self._encode(x, self.renderer), self.net.deviation, self.metric, loss, self.steps)


class EncoderInversion:
    """A published encoder, e4e, pSp or the W-encoder, with its generator."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        names = ctx.profile.inverter.weights, ctx.profile.generator.weights
        self.net = load(names[0], partial(e4e.load, kind=weights.kind(names[0])))
        if self.net.num_ws != self.generator.num_ws:
            raise UserError(
                f"encoder {names[0]} gives {self.net.num_ws} latents but generator {names[1]} takes "
                f"{self.generator.num_ws}; name a pair of one size in the profile",
                2,
            )
        if self.net.latent_avg is None:
            self.net.latent_avg = average_latent(ctx, self.generator)
        self.net.to(ctx.device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.net(x)


INVERSIONS: dict[str, Callable[[Context], Invert]] = {
    "mobilestylegan": PortableInversion,
    "stylegan2": EncoderInversion,
}


def new_encoder(ctx: Context, num_ws: int) -> tuple[e4e.Encoder4Editing, str]:
    """An e4e encoder to train, on the CPU, and the name of the weights that it starts from ("" for none).

    Those are the profile's encoder where it is on this machine, else as a body the network of the identity loss.
    """
    name, body = ctx.profile.inverter.weights, ctx.profile.train.identity_weights
    if name and weights.local(name):
        net = load(name, e4e.Encoder4Editing.load)
        if net.num_ws != num_ws:
            raise UserError(
                f"encoder {name} gives {net.num_ws} latents but generator {ctx.profile.generator.weights} takes "
                f"{num_ws}; name a pair of one size in the profile",
                2,
            )
        return net, name
    net = e4e.Encoder4Editing(num_ws)
    for weight in [head.linear.weight for head in net.styles if isinstance(head, e4e.StyleHead)][1:]:
        nn.init.zeros_(weight)  # an offset grows from nothing, whenever its slot is unlocked
    if not body or not weights.local(body):
        return net, ""
    own = load(body, Identity.load).state_dict()
    net.load_state_dict({n: t for n, t in own.items() if not n.startswith("output_layer.")}, strict=False)
    return net, body
