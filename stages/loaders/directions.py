"""The profile's semantic directions, and whether they belong to its generator."""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from models.generators.interface import Generator
from pipeline import hashing, weights
from pipeline.context import Context
from pipeline.errors import UserError

DRAWN, TRUNCATION = 4096, 0.8  # mapped latents, truncated towards their mean, that a step is measured by
EDITS = ("age", "smile", "pose")  # that are offered and measured; other directions only keep these apart
COARSE = {"pose": 5}  # first layers of W+, those up to 16 px, that alone a direction moves; the others it moves all
PUBLISHED_WS = 18  # layers of W+ of the 1024 px generator that the published directions were found in


def directions(ctx: Context, net: Generator) -> dict[str, Tensor]:
    """The profile's directions by name, each as long as one step: [1, 512] of W, or [num_ws, 512] of W+.

    A step is the std of generated faces' latents along the direction, so that +-2 steps reach what is rare among them.
    A direction in COARSE leaves finer layers alone, where there is more of who somebody is than of what it is to move.
    Raises: UserError(2) when one belongs to another generator; UserError when weights are missing or damaged.
    """
    found: dict[str, Tensor] = {}
    own: set[str] = set()
    for name in ctx.profile.editing.directions:
        tensors = weights.tensors(name)
        if list(tensors) == ["direction"]:
            _refuse_published(ctx, net, name)
            found[_label(name)] = tensors["direction"].float()
        else:
            _refuse_others(ctx, net, name)
            found |= {label: tensor.float()[None] for label, tensor in tensors.items()}
            own |= set(tensors)
    w = mapped(net, ctx.profile.seed, ctx.device) if found else torch.zeros(0)
    steps = {name: d.to(w.device) * float((w @ d.to(w.device).T).std()) for name, d in found.items()}
    layers = torch.arange(net.num_ws, device=w.device)[:, None]
    return {name: d * (layers < COARSE[name]) if name in COARSE and name in own else d for name, d in steps.items()}


def names(ctx: Context) -> list[str]:
    """What the profile's directions are called. Raises: UserError when their weights are missing."""
    held = {name: weights.names(name) for name in ctx.profile.editing.directions}
    return [label for name, own in held.items() for label in ([_label(name)] if own == ["direction"] else own)]


def offered(ctx: Context) -> list[str]:
    """Those of EDITS that the profile has. Raises: UserError as `names`."""
    there = names(ctx)
    return [name for name in EDITS if name in there]


def _label(name: str) -> str:
    """What a direction in weights of its own is called."""
    return Path(name).stem if "/" in name else name.removeprefix("direction-")


def sha256(ctx: Context) -> str:
    """What tells the profile's directions from others; "" where it has none."""
    digests = [weights.sha256(name) for name in ctx.profile.editing.directions]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if len(digests) > 1 else "".join(digests)


@torch.no_grad()
def mapped(net: Generator, seed: int, device: str | torch.device = "cpu") -> Tensor:
    """DRAWN latents [N, 512] of generated faces, truncated towards 0: where the middle lies changes no spread."""
    z = torch.randn(DRAWN, 512, generator=torch.Generator().manual_seed(seed)).to(device)
    return TRUNCATION * net.map(z)


def mapping_digest(net: torch.nn.Module) -> str:
    """A digest of the generator's mapping network: directions belong to its W."""
    mapping = {n: t for n, t in net.state_dict().items() if n.startswith(("mapping.", "style."))}
    return hashing.digest(*(t.float().cpu().numpy().tobytes() for _, t in sorted(mapping.items()))).hex()


def _refuse_published(ctx: Context, net: Generator, name: str) -> None:
    published = {w.sha256: w for w in weights.REGISTRY.values() if w.kind == "boundary"}
    source = published.get(str(weights.about(name).get("source_sha256", "")))
    if source and net.num_ws != PUBLISHED_WS:
        raise UserError(
            f"{name}: is {source.what}; profile {ctx.profile.name} has a generator with another W "
            f"({net.num_ws} layers); make its own by `hypernst directions`",
            2,
        )


def _refuse_others(ctx: Context, net: Generator, name: str) -> None:
    made = json.loads(weights.metadata(name).get("meta", "{}"))
    if made.get("mapping") != mapping_digest(net):  # type: ignore[arg-type]
        raise UserError(
            f"{name}: its directions are of the W of {made.get('generator') or 'another generator'}, not of "
            f"{ctx.profile.generator.weights or 'an untrained one'} in profile {ctx.profile.name}; "
            "make its own by `hypernst directions`",
            2,
        )
