"""Importing files in tests: into a cache folder of their own, and what must hold of those that are not taken."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import weights
from pipeline.errors import UserError
from stages.weights_import import importer as imports


def own_cache(place: Path, patch: pytest.MonkeyPatch) -> None:
    """Have an empty folder of weights, at `place`."""
    patch.setenv("XDG_CACHE_HOME", str(place))
    patch.delenv("HYPERNST_WEIGHTS", raising=False)


def take(path: Path, name: str | Path = "", **options: Any) -> imports.Imported:
    """Import a file."""
    return imports.import_file(path, str(name), **options)


def refused(path: Path, name: str | Path = "", **options: Any) -> str:
    """The one line about a file that is not taken; nothing of it is left."""
    before = kept()
    with pytest.raises(UserError) as caught:
        take(path, name, **options)
    told = str(caught.value)
    assert "\n" not in told and str(path) in told
    assert kept() == before and not Path(name).is_file()
    return told.replace(str(path), "FILE")


def kept() -> set[Path]:
    """The files in the cache folder."""
    return {item for item in weights.folder().rglob("*") if item.is_file() and "locks" not in item.parts}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


def shapes(network: Any, *arguments: Any) -> dict[str, Tensor]:
    """A state dict of zeros that takes no memory."""
    with torch.device("meta"):
        meta = network(*arguments).state_dict()
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in meta.items()}


def theirs(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A discriminator's tensors under the Swapping Autoencoder's names."""
    return {prefix + name.replace(".conv.", ".Conv.").replace(".bias.", ".Act."): t for name, t in state.items()}
