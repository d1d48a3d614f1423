"""Imports files in tests, into a separate cache folder; and checks what must hold when a file is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import weights
from pipeline.errors import UserError
from stages.weights_import import importer as imports


def own_cache(place: Path, patch: pytest.MonkeyPatch) -> None:
    """Use an empty folder of weights, in `place`."""
    patch.setenv("XDG_CACHE_HOME", str(place))
    patch.delenv("HYPERNST_WEIGHTS", raising=False)


def take(path: Path, name: str | Path = "", **options: Any) -> imports.Imported:
    """Import a file."""
    return imports.import_file(path, str(name), **options)


def refused(path: Path, name: str | Path = "", **options: Any) -> str:
    """The error line for a file that is refused, with FILE for its path; nothing of the file may be kept."""
    before = kept()
    with pytest.raises(UserError) as caught:
        take(path, name, **options)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert kept() == before and not Path(name).is_file()
    return message.replace(str(path), "FILE")


def kept() -> set[Path]:
    """The files in the cache folder."""
    return {item for item in weights.folder().rglob("*") if item.is_file() and "locks" not in item.parts}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether both have the same names and the same values, compared in float32."""
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


def shapes(network: Any, *arguments: Any) -> dict[str, Tensor]:
    """The state dict of a network as zeros that take no memory."""
    with torch.device("meta"):
        meta = network(*arguments).state_dict()
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in meta.items()}


def theirs(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a discriminator under the names of the Swapping Autoencoder."""
    return {prefix + name.replace(".conv.", ".Conv.").replace(".bias.", ".Act."): t for name, t in state.items()}
