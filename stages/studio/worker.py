"""One thread owns the networks. It takes the most urgent job, and lets more urgent ones go first at every pause."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any

from pipeline.errors import UserError
from pipeline.progress import at_pauses, say

MOST_WAITING = 16


class Rank(IntEnum):
    """The order of work: what a hand waits for first."""

    EXACT = 0
    KEYFRAME = 1
    IMPORT = 2
    REFINE = 3
    EXPORT = 4
    BATCH = 5


class Cancelled(Exception):
    """Raised in a job that is no longer wanted, at its next pause."""


class Busy(UserError):
    """Raised when more jobs wait than the page could ever want."""


class Job:
    """A piece of work for the networks' thread, and how far it is. `about` is the id of what it works on."""

    def __init__(self, kind: str, rank: Rank, work: Callable[["Job"], Any], about: str = "") -> None:
        self.id, self.kind, self.rank, self.work, self.about = secrets.token_hex(8), kind, rank, work, about
        self.state, self.what, self.done, self.of = "waiting", "", 0, 0
        self.seconds = 0.0  # of its own work, without that of jobs that went first
        self.wanted = True
        self.counts = False  # whether it sets `done` and `of` itself
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # from here on only the worker ends it

    def told(self) -> dict[str, Any]:
        """The job as the page sees it."""
        facts: dict[str, Any] = {"job": self.id, "kind": self.kind, "about": self.about, "state": self.state}
        left = self.seconds / self.done * (self.of - self.done) if self.done and self.state == "running" else None
        facts |= {"what": self.what, "done": self.done, "of": self.of, "left": left and round(left, 1)}
        error = self.future.exception() if self.future.done() and not self.future.cancelled() else None
        return facts | (in_words(error) if error else {})


def in_words(error: BaseException) -> dict[str, str]:
    """What went wrong and the way out, in the words of a `UserError`; of other errors nothing is shown."""
    if not isinstance(error, UserError):
        return {"error": "something went wrong here", "way_out": "the terminal that runs the studio says what"}
    text, _, way_out = str(error).rpartition("; ")
    return {"error": text or way_out, "way_out": way_out if text else ""}


def _nothing(job: Job) -> None:
    """What is left to do of a job that ended."""


class Worker:
    """The thread and the jobs that wait for it. `tell` is called with a job whenever it got further."""

    def __init__(self, tell: Callable[[Job], None]) -> None:
        self.tell = tell
        self._waiting: list[Job] = []
        self._running: list[tuple[Job, float]] = []  # the innermost last, with the time at which it went on
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="networks", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Put a job in line. Raises: Busy when too many wait; what is exact replaces what waited, and is taken."""
        with self._changed:
            if job.rank != Rank.EXACT and len(self._waiting) >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING} jobs are waiting; try again when some are done", 2)
            self._waiting.append(job)
            self._changed.notify()
        self.tell(job)
        return job

    def cancel(self, job: Job) -> None:
        """End a job: before it begins, or at its next pause."""
        job.wanted = False
        with self._changed:
            waiting = job in self._waiting
            if waiting:
                self._waiting.remove(job)
        if waiting:
            self._end(job, "cancelled", Cancelled())

    def progress(self, what: str, done: int, of: int) -> None:
        """What the running job does now; a pause as well."""
        if threading.current_thread() is not self._thread:
            return
        job, _ = self._running[-1]
        self.pause()
        job.what = what
        if not job.counts:
            job.done, job.of = done, of
        job.seconds = self._spent()
        self.tell(job)

    def pause(self) -> None:
        """Do all jobs that are more urgent than the running one. Raises: Cancelled when that is no longer wanted."""
        if threading.current_thread() is not self._thread or not self._running:
            return
        job, since = self._running[-1]
        if not job.wanted or self._stopped:
            raise Cancelled
        while (urgent := self._next(job.rank)) is not None:
            job.seconds += time.perf_counter() - since
            self._run(urgent)
            since = time.perf_counter()
            self._running[-1] = job, since
        if not job.wanted:
            raise Cancelled

    def urgent(self, rank: Rank) -> bool:
        """Whether a job waits that is more urgent than `rank`."""
        with self._changed:
            return any(job.rank < rank for job in self._waiting)

    def stop(self) -> None:
        """Cancel everything, and wait for the thread: it ends at its next pause, unless a file or device hangs."""
        with self._changed:
            self._stopped = True
            waiting, self._waiting = self._waiting, []
            self._changed.notify()
        for job in waiting:
            self._end(job, "cancelled", Cancelled())
        self._thread.join(timeout=30)

    def _spent(self) -> float:
        job, since = self._running[-1]
        return job.seconds + time.perf_counter() - since

    def _next(self, below: int) -> Job | None:
        with self._changed:
            found = min((job for job in self._waiting if job.rank < below), key=lambda job: job.rank, default=None)
            if found is not None:
                self._waiting.remove(found)
            return found

    def _work(self) -> None:
        at_pauses(self.pause)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
            if (job := self._next(len(Rank))) is not None:
                self._run(job)

    def _run(self, job: Job) -> None:
        job.state = "running"
        self._running.append((job, time.perf_counter()))
        try:
            self.tell(job)
            result = job.work(job)
        except Cancelled as error:
            self._end(job, "cancelled", error)
        except BaseException as error:
            if not isinstance(error, UserError):
                say(f"studio: {job.kind}: {type(error).__name__}: {error}")
            self._end(job, "failed", error)
        else:
            job.seconds, job.done = self._spent(), job.of
            self._end(job, "done", None, result)
        finally:
            job.work = _nothing  # it holds on to pictures
            self._running.pop()

    def _end(self, job: Job, state: str, error: BaseException | None, result: Any = None) -> None:
        job.state = state
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
        self.tell(job)
