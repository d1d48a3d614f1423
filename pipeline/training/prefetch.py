"""Makes the data of the next steps, in a thread or in processes, while the current step computes."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Data = TypeVar("Data")


class Prefetcher(Generic[Data]):
    """`prefetcher[step]` is `make(step)`, which starts when the step before is read. Use it as a context manager.

    With `workers`, so many processes make the steps after the one that was asked for, for a GPU that would wait for
    one thread. `make` is pickled where processes are not forked, and what it returns always is.
    """

    def __init__(self, make: Callable[[int], Data], workers: int = 0) -> None:
        self._make, self._workers = make, workers
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._pending: dict[int, Future[Data]] = {}
        self._ahead: Iterator[Data] | None = None
        self._next = -1

    def __getitem__(self, step: int) -> Data:
        if self._workers:
            if self._ahead is None or step != self._next:
                self._ahead = self._made_from(step)
            self._next = step + 1
            return next(self._ahead)
        current = self._pending.pop(step, None) or self._pool.submit(self._make, step)
        self._pending = {step + 1: self._pool.submit(self._make, step + 1)}
        return current.result()

    def __enter__(self) -> "Prefetcher[Data]":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._ahead = None  # ends the processes

    def _made_from(self, step: int) -> Iterator[Data]:
        return iter(read_ahead(_Steps(self._make), itertools.count(step), self._workers))


def read_ahead(items: Any, numbers: Iterable[int], workers: int, *, pin: bool = False) -> "DataLoader":
    """Loads `items[number]` for each number, as it is, in so many processes of one thread; 0: in this one."""
    from torch.utils.data import DataLoader

    return DataLoader(
        items,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin,
        worker_init_fn=_single_thread,
    )


class _Steps(Generic[Data]):
    """The data of each step, in the form of a dataset for DataLoader."""

    def __init__(self, make: Callable[[int], Data]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> Data:
        return self._make(step)


def _as_is(batch: Any) -> Any:
    """The batch unchanged; used in place of DataLoader's conversion, which would turn every value into a tensor."""
    return batch


def _single_thread(_: int) -> None:
    """Limit OpenCV to one thread in this worker, as the other cores have their own workers.

    Ctrl-C is for the training, which saves and then ends its workers.
    """
    import signal

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
