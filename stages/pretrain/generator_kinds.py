"""How fine-tuning differs between the kinds of generators: the mapping network, the learning rate, the file layout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline import weights
from pipeline.context import Context
from stages.loaders import generator as generators

Files = dict[str, tuple[str, dict[str, Tensor]]]  # profile key: (ending of the file's name, tensors)


@dataclass(frozen=True)
class Kind:
    """What differs between generators: the mapping network's attribute, the learning rate, the published layout."""

    mapping: str
    rate: float
    export: Callable[[Any, Context, bool], Files]


def _stylegan2(net: Any, ctx: Context, mapping: bool) -> Files:
    tensors = dict(net.state_dict())
    if mapping:
        tensors["latent_avg"] = net.mean_latent(generators.AVERAGED, ctx.profile.seed)
    elif net.latent_avg is not None:
        tensors["latent_avg"] = net.latent_avg
    return {"generator.weights": ("", tensors)}


def _mobilestylegan(net: Any, ctx: Context, mapping: bool) -> Files:
    tensors, head = net.published(weights.tensors(ctx.profile.generator.weights))
    return {"generator.weights": ("", tensors), "generator.head": ("-head", head)}


KINDS = {"stylegan2": Kind("style", 2e-3, _stylegan2), "mobilestylegan": Kind("mapping", 1e-4, _mobilestylegan)}
