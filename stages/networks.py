"""The profile's networks, loaded: where the weights registry and the models meet, and `kind` is looked at."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import e4e, stylegan2
from models.descent import Metric, descend
from models.face_loss import FaceLoss
from models.hypernetwork import HyperNetwork
from models.identity import Identity
from models.inverter import Inverter
from models.latent_renderer import LatentRenderer, narrow_type
from models.layers import Generator, LayerEntry
from models.lpips import LPIPS
from models.mobilestylegan import MobileStyleGAN
from models.region_hyperstyle import RegionHyperStyle
from models.stylegan2 import StyleGAN2
from pipeline import checkpoint, weights
from pipeline.context import Context
from pipeline.errors import Fault

AVERAGED = 100_000  # mapped z behind the average latent of a file that has none
Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=torch.nn.Module)


class Invert(Protocol):
    """Turns pictures [N, 3, 256, 256] in [-1, 1] into latents [N, slots, 512] of its `generator`."""

    generator: Generator

    def __call__(self, x: Tensor) -> Tensor:
        """Latents of pictures."""


def generator(ctx: Context, *, full: bool = False) -> Generator:
    """The frozen generator, with pictures of the profile's size or, `full`, of its own."""
    return _kind(ctx)[0](ctx, full)


def inversion(ctx: Context) -> Invert:
    """The inverter that belongs to the profile's kind of generator; without weights one that knows nothing."""
    return _kind(ctx)[1](ctx) if ctx.profile.inverter.weights else Untrained(ctx)


def _mobilestylegan(ctx: Context, full: bool) -> Generator:
    settings = ctx.profile.generator
    head = None if full else weights.tensors(settings.head)
    return MobileStyleGAN.load(weights.tensors(settings.weights), head).to(ctx.device)


def _stylegan2(ctx: Context, full: bool) -> Generator:
    settings = ctx.profile.generator
    size = None if full else settings.size
    if not settings.weights:
        return drawn(ctx, lambda: StyleGAN2(settings.size)).to(ctx.device)
    return _load(settings.weights, lambda tensors: StyleGAN2.load(tensors, size=size, seed=ctx.profile.seed)).to(
        ctx.device)


def drawn(ctx: Context, build: Callable[[], Network]) -> Network:
    """A frozen network with weights drawn from the profile's seed: what tests take where a profile names none."""
    with torch.random.fork_rng([]):
        torch.manual_seed(ctx.profile.seed)
        return build().requires_grad_(False).eval()


class Untrained:
    """In place of an inverter: takes the picture's colours for z, so that alike pictures have alike latents."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        self.spread = drawn(ctx, lambda: torch.nn.Linear(3 * 4 * 4, 512)).to(ctx.device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        w = self.generator.map(self.spread(F.adaptive_avg_pool2d(x, 4).flatten(1)))
        return w[:, None].expand(-1, self.generator.slots, -1)


class Refining:
    """The portable inverter with all it needs: its passes, then the profile's steps of descent, picture by picture."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        self.net = Inverter.load(weights.tensors(ctx.profile.inverter.weights)).to(ctx.device)
        self.lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
        self.passes, self.steps = ctx.profile.inverter.passes, ctx.profile.inverter.steps
        if self.steps:
            if self.net.metric is None:
                raise Fault(f"{ctx.profile.inverter.weights} has no metric, which inverter.steps needs; train it with "
                            "`hypernst train-inverter`, or set the steps to 0")
            dtype = narrow_type(ctx.device)
            own: Any = self.generator
            self.renderer = LatentRenderer(own, dtype)
            self.loss = FaceLoss(LPIPS("vgg", weights.tensors("lpips-vgg")).to(ctx.device), dtype)
        with torch.no_grad():
            self.start = self.generator(self.net.mean[None]).clamp(-1, 1)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        latents = self.net(x, self.lpips.trunk, self.generator, self.passes, self.start)
        if not self.steps or self.net.metric is None:
            return latents
        return torch.cat([self._descend(self.net.metric, *pair)
                          for pair in zip(latents.split(1), x.split(1), strict=True)])

    def _descend(self, metric: Metric, latent: Tensor, x: Tensor) -> Tensor:
        target = self.loss.target(x)
        return descend(latent, self.net.deviation, metric, lambda w: self.loss(self.renderer(w), target), self.steps)


class Encoding:
    """A published encoder, e4e, pSp or the W-encoder, with its generator."""

    def __init__(self, ctx: Context) -> None:
        self.generator = generator(ctx)
        names = ctx.profile.inverter.weights, ctx.profile.generator.weights
        self.net = _load(names[0], partial(e4e.load, kind=weights.kind(names[0])))
        if self.net.slots != self.generator.slots:
            raise Fault(f"encoder {names[0]} gives {self.net.slots} latents but generator {names[1]} takes "
                        f"{self.generator.slots}; name a pair of one size in the profile", 2)
        if self.net.latent_avg is None:
            self.net.latent_avg = average_latent(ctx, self.generator)
        self.net.to(ctx.device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.net(x)


def average_latent(ctx: Context, net: Generator) -> Tensor:
    """The generator's average latent: its file's, else the mean of AVERAGED mapped z, stored with its seed."""
    own = getattr(net, "latent_avg", None)
    if own is not None:
        return own
    digest, seed = weights.sha256(ctx.profile.generator.weights), ctx.profile.seed
    place = weights.folder() / "latent_avg" / f"{digest[:16]}-{seed}.safetensors"
    if place.exists():
        return checkpoint.load(place)[0]["latent_avg"]
    average = net.mean_latent(AVERAGED, seed).cpu()
    meta = {"generator": ctx.profile.generator.weights, "sha256": digest, "samples": AVERAGED, "seed": seed}
    checkpoint.save(place, {"latent_avg": average}, meta)
    return average


KINDS: dict[str, tuple[Callable[[Context, bool], Generator], Callable[[Context], Invert]]] = {
    "mobilestylegan": (_mobilestylegan, Refining),
    "stylegan2": (_stylegan2, Encoding),
}


def _kind(ctx: Context) -> tuple[Callable[[Context, bool], Generator], Callable[[Context], Invert]]:
    kind = ctx.profile.generator.kind
    if kind not in KINDS:
        raise Fault(f"generator.kind is {kind!r}; expected one of {', '.join(KINDS)}", 2)
    return KINDS[kind]


def stylegan2_size(ctx: Context) -> tuple[int, float]:
    """Size and channel multiplier of the profile's StyleGAN2, from its file or else from what the registry expects."""
    name = ctx.profile.generator.weights
    if not name:
        return ctx.profile.generator.size, 2
    if weights.local(name):
        return stylegan2.measure(weights.tensors(name))[:2]
    expects = weights.REGISTRY[name].expects if name in weights.REGISTRY else {}
    return int(str(expects.get("size", 1024))), float(str(expects.get("multiplier", 2)))


def new_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """An untrained hypernetwork of the profile's shape, with the profile's kind of heads."""
    s = ctx.profile.train
    ranks = {"channel": 0, "separable": s.rank}
    shared = {"condition_on_regions": s.mask_condition, "region_deltas": s.region_deltas,
              "checkpointing": s.checkpointing}
    if s.heads == "hyperstyle":
        return RegionHyperStyle(table, **shared)
    if s.heads not in ranks:
        raise Fault(f"train.heads is {s.heads!r}; expected channel, separable or hyperstyle", 2)
    return HyperNetwork(table, width=s.width, rank=ranks[s.heads], **shared)


def start(ctx: Context, hyper: HyperNetwork) -> str:
    """Give a new hypernetwork the profile's weights, if it names any; returns the phase that training starts in.

    HyperStyle's published weights know nothing of styles yet: training starts with reconstruction.
    """
    name = ctx.profile.train.weights
    if not name:
        return "reconstruct"
    if isinstance(hyper, RegionHyperStyle) and any(n.startswith("refinement_blocks.") for n in weights.names(name)):
        _load(name, hyper.initialise)
        return "reconstruct"
    _load(name, lambda tensors: hyper.load_state_dict({n: t.float() for n, t in tensors.items()}))
    return "stylize"


def trained_hypernetwork(ctx: Context, table: Sequence[LayerEntry]) -> HyperNetwork:
    """The run's averaged weights if the run has a checkpoint, else the profile's; frozen."""
    path, hyper = ctx.run / "checkpoint.safetensors", new_hypernetwork(ctx, table)
    if path.exists():
        hyper.load_state_dict(checkpoint.load(path, "ema.")[0])
    elif ctx.profile.train.weights:
        start(ctx, hyper)
    else:
        raise Fault(f"{path}: missing, and profile {ctx.profile.name} has no train.weights; run `hypernst train` first")
    return hyper.requires_grad_(False).eval().to(ctx.device)


def new_encoder(ctx: Context, slots: int) -> tuple[e4e.Encoder4Editing, str]:
    """An e4e encoder to train, on the CPU, and the name of the weights that it starts from ("" for none).

    Those are the profile's encoder where it is on this machine, else as a body the network of the identity loss.
    """
    name, body = ctx.profile.inverter.weights, ctx.profile.train.identity_weights
    if name and weights.local(name):
        net = _load(name, e4e.Encoder4Editing.load)
        if net.slots != slots:
            raise Fault(f"encoder {name} gives {net.slots} latents but generator {ctx.profile.generator.weights} takes "
                        f"{slots}; name a pair of one size in the profile", 2)
        return net, name
    net = e4e.Encoder4Editing(slots)
    for weight in [head.linear.weight for head in net.styles if isinstance(head, e4e.StyleHead)][1:]:
        nn.init.zeros_(weight)  # an offset grows from nothing, whenever its slot is unlocked
    if not body or not weights.local(body):
        return net, ""
    own = _load(body, Identity.load).state_dict()
    net.load_state_dict({n: t for n, t in own.items() if not n.startswith("output_layer.")}, strict=False)
    return net, body


def identity(ctx: Context) -> Identity | None:
    """The identity loss's network, None where the profile gives it no weight."""
    settings = ctx.profile.train
    if settings.identity and not settings.identity_weights:
        raise Fault(f"train.identity is {settings.identity}; name its network in train.identity_weights", 2)
    return _load(settings.identity_weights, Identity.load).to(ctx.device) if settings.identity else None


def _load(name: str, loader: Callable[[dict[str, Tensor]], Loaded]) -> Loaded:
    """Load registered weights; what does not fit is told with the weights' name."""
    try:
        return loader(weights.tensors(name))
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:500]
        raise Fault(f"{name}: {said}; name other weights in the profile") from error
