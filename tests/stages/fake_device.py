"""A GPU that is not there: tensors say they lie on one, compute on the CPU, and refuse to mix with tensors beside it.

Within `FakeDevice` whatever is moved to the device or made on it is held by it. An operation that mixes such a tensor
with one on the CPU fails as it would on a GPU. `syncs` counts what a real GPU would have to be waited for.
"""

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"  # a device that PyTorch knows and does not look for
WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique2", "is_nonzero", "item")
FREE = ("copy_", "_to_copy", "_pin_memory")  # may mix devices, as moving does


class Held(Tensor):
    """A tensor of the device; `inside` is what it computes with."""

    inside: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "Held":
        held = Tensor._make_wrapper_subclass(
            cls, real.shape, real.stride(), real.storage_offset(), dtype=real.dtype, device=f"{NAME}:0"
        )
        held.inside = real
        return held

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Held({self.inside})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: outside of FakeDevice")


class FakeDevice(TorchDispatchMode):
    """The context; `syncs` counts waits by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        held = any(isinstance(leaf, Held) for leaf in leaves)
        name = func.overloadpacket.__name__
        beside = [leaf for leaf in leaves if not isinstance(leaf, Held) and leaf.ndim]
        if held and beside and name not in FREE and not (name.startswith("index") and _indexed_by(args, beside)):
            raise RuntimeError(f"{func}: a tensor {list(beside[0].shape)} on cpu among tensors on {NAME}:0")
        wanted = kwargs.get("device")
        here = held if wanted is None else torch.device(wanted).type == NAME
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        indexed = name.startswith("index") and beside  # indices are copied there first
        if held and (name in WAITS or (name == "_to_copy" and not here) or (name == "copy_" and beside) or indexed):
            self.syncs[name] += 1
        out = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        if not here:
            return out
        same = {id(leaf.inside): leaf for leaf in leaves if isinstance(leaf, Held)}
        return tree_map(lambda t: same.get(id(t), Held(t)) if isinstance(t, Tensor) else t, out)


def _indexed_by(args: tuple, beside: Sequence[Tensor]) -> bool:
    """Whether the tensors on the CPU are only indices: those a GPU takes."""
    indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)] if len(args) > 1 else []
    return isinstance(args[1], list | tuple) and all(any(t is i for i in indices) for t in beside)


def _real(value: Any) -> Any:
    return value.inside if isinstance(value, Held) else value


@contextmanager
def fake_gpu() -> Iterator[FakeDevice]:
    """A FakeDevice on which optimisers may be fused, as on a GPU."""
    with pytest.MonkeyPatch.context() as patch, FakeDevice() as gpu:
        patch.setattr(importlib.import_module("torch.optim.adam"), "_device_dtype_check_for_fused", lambda p: None)
        yield gpu
