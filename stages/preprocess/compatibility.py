"""Which generator and encoders made a cache, and whether the profile can use what it holds."""

from collections.abc import Mapping
from typing import Any

from pipeline import weights
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError


def encoder_id(provenance: Mapping[str, Any]) -> str:
    """The encoder behind the codes of a cache, from its provenance: its kind and its weights' sha256, shortened."""
    files = ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(provenance["weights"].items()))
    return f"{provenance['params'].get('kind', 'imagenet')} ({files or 'random weights'})"


def one_encoder(ctx: Context) -> str:
    """The encoder that made the codes of every collection that has some; "" where none has.

    Raises: UserError when they differ; it names both. Codes of two encoders have nothing in common.
    """
    encoders = {}
    for name in COLLECTIONS:
        path = ctx.file(name, "aladin")
        if path.exists():
            with Cache(path) as cache:
                encoders[path] = encoder_id(cache.provenance)
    if len(set(encoders.values())) > 1:
        both = "; ".join(f"{path} holds codes of {encoder}" for path, encoder in encoders.items())
        raise UserError(f"{both}: they cannot be mixed; run `hypernst aladin-codes` for both with one profile", 2)
    return next(iter(encoders.values()), "")


def identity(ctx: Context) -> dict[str, list[str]]:
    """The generator and the encoder that a latent belongs to, each by name and sha256."""
    names = {"generator": ctx.profile.generator.weights, "encoder": ctx.profile.inverter.weights}
    return {role: [name, weights.sha256(name)] for role, name in names.items() if name}


def made_with(provenance: Mapping[str, Any]) -> dict[str, list[str]]:
    """The `identity` that a latents.h5 or an index of shards was made with; {} where it records none."""
    if "latents" in provenance:
        return dict(provenance["latents"])
    params, digests = provenance.get("params", {}), provenance.get("weights", {})
    named = {"generator": params.get("generator", {}), "encoder": params.get("inverter", {})}
    return {
        role: [section["weights"], digests[section["weights"]]]
        for role, section in named.items()
        if section.get("weights") in digests
    }


def refuse_others(ctx: Context, provenance: Mapping[str, Any], where: object) -> None:
    """Check that latents were made with the profile's generator and encoder: they are of no use with others.

    Raises: UserError when the profile has others; it names both pairs.
    """
    recorded = made_with(provenance)
    expected = identity(ctx) if recorded else {}
    if any(recorded[role][1:] != expected.get(role, [""])[1:] for role in recorded):  # their content, not their names
        raise UserError(
            f"{where}: its latents are of {_names(recorded)}, profile {ctx.profile.name} has {_names(expected)}; run "
            "`hypernst latents` and the stages after it again, or name another --profile or --cache",
            2,
        )


def _names(networks: Mapping[str, list[str]]) -> str:
    return " and ".join(f"{role} {name} ({digest[:8]})" for role, (name, digest) in networks.items())
