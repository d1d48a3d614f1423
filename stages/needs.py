"""How much memory a profile's work takes, estimated from its networks built on the meta device."""

from dataclasses import dataclass

import torch
from torch import nn

from models import stylegan2
from models.discriminators import ImageDiscriminator, PatchDiscriminator
from models.layers import LayerEntry
from models.mobilestylegan import MobileStyleGAN
from pipeline import files, weights
from pipeline.context import Context
from stages import networks

FLOAT = 4
COPIES = 5  # of what is trained: weights, gradient, Adam's two moments, the average
LIBRARIES = 1.0e9  # what a process takes before any network is there
ACTIVATIONS = 2.0e9  # one sample on its way through a generator and back; checkpointing keeps it near this


@dataclass(frozen=True)
class Memory:
    """Bytes for the preprocessing stages (the largest of them) and for training with one sample at a time."""

    preprocessing: float
    training: float


def memory(ctx: Context) -> Memory:
    """The estimate for the profile; needs no weights on this machine."""
    p = ctx.profile
    generator = _held(p.generator.weights)
    stages = (generator + _held(p.inverter.weights), _held(p.parser.weights), _held(p.aladin.weights))
    with torch.device("meta"):
        hyper = networks.new_hypernetwork(ctx, _table(ctx))
        base = p.train.image_critic_base
        critics = (ImageDiscriminator(p.generator.size, base=base, top=max(128, base // 64)),
                   PatchDiscriminator(width=p.train.patch_critic_width))
    trained = sum(map(_bytes, (hyper, *critics)))
    return Memory(LIBRARIES + max(stages) * 1.5, LIBRARIES + generator + COPIES * trained + ACTIVATIONS)


def _table(ctx: Context) -> list[LayerEntry]:
    """The generator's layer table, from its file or else from what the registry expects of it."""
    settings = ctx.profile.generator
    if settings.kind == "mobilestylegan":
        return MobileStyleGAN(settings.size).layer_table()
    if not settings.weights:
        return stylegan2.layer_table(settings.size)
    if weights.local(settings.weights):
        size, multiplier, _ = stylegan2.measure(weights.tensors(settings.weights))
        return stylegan2.layer_table(size, multiplier)
    expects = weights.REGISTRY[settings.weights].expects if settings.weights in weights.REGISTRY else {}
    return stylegan2.layer_table(int(str(expects.get("size", 1024))), float(str(expects.get("multiplier", 2))))


def _held(name: str) -> float:
    """Bytes of a network's weights."""
    if not name:
        return 0.0
    place = weights.local(name)
    if place is not None:
        return float(files.size(place))
    known = weights.REGISTRY.get(name)
    return known.mb * 1e6 if known and known.mb else 4e8  # FaRL's size is not published: a ViT-B and a head


def _bytes(net: nn.Module) -> int:
    return FLOAT * sum(p.numel() for p in net.parameters())
