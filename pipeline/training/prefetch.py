"""The next step's data is made in a thread while this step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """`prefetched[step]` is `make(step)`, started when the step before it was asked for. Close it at the end."""

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: dict[int, Future[Made]] = {}

    def __getitem__(self, step: int) -> Made:
        now = self._coming.pop(step, None) or self._pool.submit(self._make, step)
        self._coming = {step + 1: self._pool.submit(self._make, step + 1)}
        return now.result()

    def __enter__(self) -> "Prefetcher[Made]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
