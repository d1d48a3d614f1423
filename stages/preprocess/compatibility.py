"""Which generator and encoders made a cache, and whether the profile can use what it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import weights
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError


def encoder_id(provenance: Mapping[str, Any]) -> str:
    """What made the codes of a cache, from its provenance: the network's kind and its weights' sha256, shortened."""
    files = ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(provenance["weights"].items()))
    return f"{provenance['params'].get('kind', 'imagenet')} ({files or 'random weights'})"


def one_encoder(ctx: Context) -> str:
    """The encoder that made the codes of every collection that has some; "" where none has.

    Raises: UserError naming both where they differ: codes of two encoders have nothing in common.
    """
    found = {}
    for name in COLLECTIONS:
        path = ctx.file(name, "aladin")
        if path.exists():
            with Cache(path) as cache:
                found[path] = encoder_id(cache.provenance)
    if len(set(found.values())) > 1:
        told = "; ".join(f"{path} holds codes of {encoder}" for path, encoder in found.items())
        raise UserError(f"{told}: they cannot be mixed; run `hypernst aladin-codes` for both with one profile", 2)
    return next(iter(found.values()), "")


def identity(ctx: Context) -> dict[str, list[str]]:
    """What a latent belongs to: generator and encoder, each by name and sha256."""
    names = {"generator": ctx.profile.generator.weights, "encoder": ctx.profile.inverter.weights}
    return {role: [name, weights.sha256(name)] for role, name in names.items() if name}


def made_with(provenance: Mapping[str, Any]) -> dict[str, list[str]]:
    """The `identity` that a latents.h5 or an index of shards was made with; {} where none is recorded."""
    if "latents" in provenance:
        return dict(provenance["latents"])
    params, digests = provenance.get("params", {}), provenance.get("weights", {})
    named = {"generator": params.get("generator", {}), "encoder": params.get("inverter", {})}
    return {
        role: [section["weights"], digests[section["weights"]]]
        for role, section in named.items()
        if section.get("weights") in digests
    }


def refuse_others(ctx: Context, provenance: Mapping[str, Any], where: Path) -> None:
    """Latents are only of use with the generator and the encoder that they were made with.

    Raises: UserError naming both pairs when the profile has others.
    """
    theirs = made_with(provenance)
    ours = identity(ctx) if theirs else {}
    if any(theirs[role] != ours.get(role) for role in theirs):
        raise UserError(
            f"{where}: its latents are of {_names(theirs)}, profile {ctx.profile.name} has {_names(ours)}; run "
            "`hypernst latents` and what follows again, or choose another profile or --cache",
            2,
        )


def _names(found: Mapping[str, list[str]]) -> str:
    return " and ".join(f"{role} {name} ({digest[:8]})" for role, (name, digest) in found.items())
