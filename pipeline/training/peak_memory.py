"""How much memory a computation would take at most, found without doing it.

Under `PeakMemory` new tensors are on the meta device, where torch computes shapes only, and every storage is counted
from its making to its freeing, those that the backward pass frees included. What a library takes for itself, such as
cuDNN's workspaces, is not; neither is autocast, which the meta device lacks.
"""

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors made while it is entered: `held` now, `most` at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = 0, 0
        self._known: dict[int, weakref.ref] = {}
        self._meta = torch.device("meta")

    def __enter__(self) -> "PeakMemory":
        self._meta.__enter__()
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._meta.__exit__(kind, error, trace)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        name, size = id(storage), storage.nbytes()
        if name in self._known:
            return

        def freed(_: object) -> None:
            self.held -= size
            self._known.pop(name, None)

        self._known[name] = weakref.ref(storage, freed)
        self.held += size
        self.most = max(self.most, self.held)
