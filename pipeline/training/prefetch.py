"""Loads the data of the next step in a thread while the current step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Data = TypeVar("Data")


class Prefetcher(Generic[Data]):
    """`prefetcher[step]` is `make(step)`, which starts when the step before is read. Use it as a context manager."""

    def __init__(self, make: Callable[[int], Data]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._pending: dict[int, Future[Data]] = {}

    def __getitem__(self, step: int) -> Data:
        current = self._pending.pop(step, None) or self._pool.submit(self._make, step)
        self._pending = {step + 1: self._pool.submit(self._make, step + 1)}
        return current.result()

    def __enter__(self) -> "Prefetcher[Data]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
