"""Checkpoints that survive a kill: safetensors and JSON, written under a temporary name and then renamed."""

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.files import read_error, replacing


def save(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and `meta` (JSON values) to one safetensors file, whole or not at all.

    Raises: UserError when the file cannot be written.
    """
    write(path, tensors, {"meta": json.dumps(meta, sort_keys=True)})


def write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors and the texts of `header` to one safetensors file, whole or not at all. Raises: as `save`."""
    plain: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():  # copies only where needed: a state may fill half the memory
        dense = tensor.detach().cpu().contiguous()
        shared = dense.untyped_storage().nbytes() != dense.nbytes
        plain[name] = dense.clone() if shared or dense.data_ptr() in addresses else dense
        addresses.add(dense.data_ptr())
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=header)
        except SafetensorError as error:  # the library keeps the system's number in its text only
            told = re.search(r"\(os error (\d+)\)", str(error))
            number = int(told[1]) if told else errno.EIO
            raise OSError(number, os.strerror(number)) from error


def load(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote: the meta, and the tensors whose names begin with `prefix`, which is removed.

    Raises: UserError when the file is not a complete safetensors file, or the system does not let it be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a plain file")
        path.open("rb").close()  # the library does not tell what the system says
        with safe_open(path, "pt") as f:
            meta = json.loads((f.metadata() or {}).get("meta", "{}"))
            names = [name for name in f.keys() if name.startswith(prefix)]  # noqa: SIM118
            if not isinstance(meta, dict):
                raise ValueError("its notes are damaged")
            return {name.removeprefix(prefix): f.get_tensor(name) for name in names}, meta
    except (SafetensorError, OSError, ValueError, RecursionError) as e:
        if isinstance(e, OSError) and e.errno and e.errno != errno.ENOENT:
            raise read_error(e.errno, path) from e
        raise UserError(
            f"{path}: not a readable checkpoint ({e}); to start that training again, move it elsewhere"
        ) from e


def meta(path: Path) -> dict[str, Any]:
    """The meta that `save` wrote; tensors are not read. Raises: UserError as `load`."""
    return load(path, prefix="\0")[1]


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with floating-point ones as fp16, for weights that are shipped."""
    return {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, named `<prefix>.<parameter index>.<name>`."""
    state = optimiser.state_dict()["state"]
    return {f"{prefix}.{i}.{name}": torch.as_tensor(value) for i, row in state.items() for name, value in row.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Restore the state from `optimiser_tensors`; parameters without saved state start with none."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name.removeprefix(prefix + ".").split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
