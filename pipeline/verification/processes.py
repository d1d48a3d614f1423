"""Runs checks over several processes where there is much to read, else here."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError, interrupts_for_us

T = TypeVar("T")
MANY_BYTES = 1 << 28  # below this a process costs more than it saves


def over_processes(check: Callable[[Path], T], files: Sequence[Path]) -> Iterator[T]:
    """Yield what `check` returns of each file, in their order. No process outlives this one, however that ends.

    Raises: UserError when a process is ended from outside; what `check` raises.
    """
    count = min(_cores(), len(files))
    if count < 2 or sum(file.stat().st_size for file in files if file.exists()) < MANY_BYTES:
        yield from map(check, files)
        return
    started = []
    try:
        resource_tracker.ensure_running()  # before, as its start lets interrupts through
        with interrupts_for_us():
            started = [_start(check, files[number::count]) for number in range(count)]
        for number, file in enumerate(files):
            try:
                result, error = started[number % count][1].recv()
            except EOFError:
                raise UserError(f"{file}: the process that read it was ended, perhaps for lack of memory") from None
            if error is not None:
                raise error
            yield result
    finally:
        for process, _ in started:
            process.terminate()
            process.join()


def _start(
    check: Callable[[Path], T], files: Sequence[Path]
) -> tuple[multiprocessing.context.SpawnProcess, Connection]:
    """A process that checks these files, and where its results come from."""
    context = multiprocessing.get_context("spawn")
    results, out = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(check, files, out), daemon=True)
    process.start()
    out.close()  # here, so that the end of that process is the end of its results
    return process, results


def _work(check: Callable[[Path], T], files: Sequence[Path], out: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for file in files:
        try:
            out.send((check(file), None))
        except Exception as error:
            out.send((None, error))
            return


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
