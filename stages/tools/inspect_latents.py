"""What `hypernst inspect` draws latents with: the generator they were made for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import profile
from pipeline.context import Context
from pipeline.errors import Fault
from stages.tools import inspect


def run(file: Path, **options: Any) -> str:
    """See `pipeline.inspect.run`."""
    return inspect.run(file, **options, generate=generate)


def generate(made: Mapping[str, Any], latents: np.ndarray) -> np.ndarray:
    """The pictures of latents [N,L,D], RGB u8 [N,H,W,3], by the generator that `made`, their file's provenance, names.

    Raises: Fault when its profile or weights are not to be had, or its generator takes other latents.
    """
    import torch

    from pipeline import images
    from stages.loaders import generator as networks

    settings = made["params"].get("generator")
    # A file made with a profile of the user's own keeps the generator's settings; shards keep the profile's name only.
    found = profile.load("portable" if settings else made["profile"])
    if settings:
        found = dataclasses.replace(found, generator=profile.Generator(**settings))
    generator = networks.generator(Context(found))
    try:
        with torch.inference_mode():
            drawn = [images.to_arrays(generator(torch.from_numpy(w[None].copy())))[0] for w in latents]
    except (ValueError, RuntimeError) as error:
        raise Fault(f"its generator cannot draw latents {list(latents.shape[1:])}: {error}") from error
    return np.stack(drawn)
