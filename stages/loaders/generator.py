"""The profile's generator: trained, or untrained where only its sizes matter."""

from collections.abc import Callable

from torch import Tensor

from models.generators import stylegan2
from models.generators.interface import Generator
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.stylegan2 import StyleGAN2
from pipeline import weights
from pipeline.context import Context
from pipeline.training import checkpoint
from stages.loaders.load import drawn, load, of_kind

AVERAGED = 100_000  # mapped z that the average latent is the mean of, for a file that has none


def generator(ctx: Context, *, full: bool = False) -> Generator:
    """The frozen generator. Its images have the profile's size, or with `full` the generator's own."""
    return of_kind(ctx, GENERATORS, "hypernst")(ctx, full)


def full_size(ctx: Context) -> int:
    """Pixels of the images that `generator` with `full` gives."""
    return stylegan2_size(ctx)[0] if ctx.profile.generator.kind == "stylegan2" else 1024


def blank(ctx: Context) -> Generator:
    """The profile's generator, untrained and frozen: for counting sizes."""
    return of_kind(ctx, BLANKS, "hypernst")(ctx)


def _mobilestylegan(ctx: Context, full: bool) -> Generator:
    settings = ctx.profile.generator
    head = None if full else weights.tensors(settings.head)
    return load(settings.weights, lambda tensors: MobileStyleGAN.load(tensors, head)).to(ctx.device)


def _stylegan2(ctx: Context, full: bool) -> Generator:
    settings = ctx.profile.generator
    size = None if full else settings.size
    if not settings.weights:
        return drawn(ctx, lambda: StyleGAN2(settings.size)).to(ctx.device)
    return load(settings.weights, lambda tensors: StyleGAN2.load(tensors, size=size, seed=ctx.profile.seed)).to(
        ctx.device
    )


GENERATORS: dict[str, Callable[[Context, bool], Generator]] = {
    "mobilestylegan": _mobilestylegan,
    "stylegan2": _stylegan2,
}


def _blank_mobilestylegan(ctx: Context) -> Generator:
    return MobileStyleGAN(ctx.profile.generator.size).requires_grad_(False)


def _blank_stylegan2(ctx: Context) -> Generator:
    native, multiplier = stylegan2_size(ctx)
    net = StyleGAN2(native, multiplier).requires_grad_(False)
    net.size = ctx.profile.generator.size
    return net


BLANKS: dict[str, Callable[[Context], Generator]] = {
    "mobilestylegan": _blank_mobilestylegan,
    "stylegan2": _blank_stylegan2,
}


def average_latent(ctx: Context, net: Generator) -> Tensor:
    """The generator's average latent: that of its file, else the mean of AVERAGED mapped z, which is stored."""
    latent_avg = getattr(net, "latent_avg", None)
    if latent_avg is not None:
        return latent_avg
    digest, seed = weights.sha256(ctx.profile.generator.weights), ctx.profile.seed
    place = weights.folder() / "latent_avg" / f"{digest[:16]}-{seed}.safetensors"
    if place.exists():
        return checkpoint.load(place)[0]["latent_avg"]
    latent_avg = net.mean_latent(AVERAGED, seed).cpu()
    meta = {"generator": ctx.profile.generator.weights, "sha256": digest, "samples": AVERAGED, "seed": seed}
    checkpoint.save(place, {"latent_avg": latent_avg}, meta)
    return latent_avg


def stylegan2_size(ctx: Context) -> tuple[int, float]:
    """Size and channel multiplier of the profile's StyleGAN2, from its file, else from the registry."""
    name = ctx.profile.generator.weights
    if not name:
        return ctx.profile.generator.size, 2
    if weights.local(name):
        return stylegan2.measure(weights.tensors(name))[:2]
    expects = weights.REGISTRY[name].expects if name in weights.REGISTRY else {}
    return int(str(expects.get("size", 1024))), float(str(expects.get("multiplier", 2)))
