"""The peak memory of a computation, counted without computing it.

Under `PeakMemory` new tensors are on the meta device, where torch computes shapes only. Every storage counts from its
creation until it is freed, also those that the backward pass frees. The memory of libraries is not
counted, such as cuDNN's workspaces. Autocast is not counted either, as the meta device does not support it.
"""

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors created while it is active: `held` is the current value, `most` the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.most = 0, 0
        self._storages: dict[int, weakref.ref] = {}
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
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def freed(_: object) -> None:
            self.held -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, freed)
        self.held += size
        self.most = max(self.most, self.held)
