"""Runs checks over several processes where there is much to read, else here."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
MANY_BYTES = 1 << 28  # below this a process costs more than it saves


def over_processes(check: Callable[[Path], T], files: Sequence[Path]) -> Iterator[T]:
    """Yield what `check` returns of each file, in their order."""
    count = min(_cores(), len(files))
    if count < 2 or sum(file.stat().st_size for file in files if file.exists()) < MANY_BYTES:
        yield from map(check, files)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(check, files)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
