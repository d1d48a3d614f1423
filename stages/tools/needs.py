"""How much memory a profile's work takes."""

from dataclasses import dataclass

from pipeline import files, weights
from pipeline.context import Context
from stages.train import memory as train_memory

LIBRARIES = 1.0e9  # what a process takes before any network is there


@dataclass(frozen=True)
class Memory:
    """Bytes for the preprocessing stages (the largest of them) and for a step of training."""

    preprocessing: float
    training: float


def memory(ctx: Context) -> Memory:
    """The estimate for the profile; needs no weights on this machine."""
    p = ctx.profile
    generator = _held(p.generator.weights)
    stages = (generator + _held(p.inverter.weights), _held(p.parser.weights), _held(p.aladin.weights))
    return Memory(LIBRARIES + max(stages) * 1.5, LIBRARIES + train_memory.step_bytes(ctx))


def _held(name: str) -> float:
    """Bytes of a network's weights."""
    if not name:
        return 0.0
    place = weights.local(name)
    if place is not None:
        return float(files.size(place))
    known = weights.REGISTRY.get(name)
    return known.mb * 1e6 if known and known.mb else 4e8  # FaRL's size is not published: a ViT-B and a head
