"""What one process keeps so as not to compute it again: the least recently used goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from models.generators.region_weights import RegionWeights

LIMIT = 512 << 20  # bytes that one process keeps unless it is told otherwise: about 20 portraits in a few styles each

Value = TypeVar("Value")


class Memory:
    """Values by key, of at most `limit` bytes together; a larger value is given back and not kept."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.held = limit, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made when it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = make()
        self.drop(key)  # made meanwhile, at a pause
        if (size := size_of(value)) <= self.limit:
            self._values[key] = value, size
            self.held += size
            while self.held > self.limit:
                self.held -= self._values.popitem(last=False)[1][1]
        return value

    def drop(self, key: Hashable) -> None:
        """Forget a value, if it is there."""
        self.held -= self._values.pop(key, (None, 0))[1]

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self.held = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values


def size_of(value: Any) -> int:
    """Bytes of the tensors and arrays in a value, through sequences, mappings and dataclasses."""
    if isinstance(value, Tensor | np.ndarray | RegionWeights):
        return int(value.nbytes)
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return 0
