"""Progress for people: a tqdm bar on a terminal; elsewhere one line every EVERY seconds."""

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar

from tqdm import tqdm

from pipeline.errors import printable

_rest: ContextVar[Callable[[], None] | None] = ContextVar("rest", default=None)
EVERY = 30.0  # seconds between lines where there is no terminal


class Progress:
    """Counts the items that are done, and those rejected, towards `total`."""

    def __init__(self, name: str, total: int, unit: str = "img") -> None:
        self.name, self.total, self.done, self.rejected = name, total, 0, 0
        self._start = self._printed = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit=unit) if sys.stderr.isatty() else None

    def add(self, done: int, rejected: int = 0) -> None:
        """Count `done` more items, of which `rejected` were rejected."""
        self.done += done
        self.rejected += rejected
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(done)
            self._bar.set_postfix(rejected=self.rejected, refresh=False)
        elif now - self._printed > EVERY and self.done:
            self._printed = now
            rate = self.done / (now - self._start)
            seconds = (self.total - self.done) / rate
            say(f"{self.name}: {self.done}/{self.total}, {rate:.3g}/s, {seconds:.0f} s left, {self.rejected} rejected")

    def close(self) -> None:
        """End the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()


def say(message: str) -> None:
    """Print one line for the user, above any bar; where it has no room, the work goes on without."""
    try:
        tqdm.write(printable(message), file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def at_pauses(work: Callable[[], None]) -> None:
    """Have this thread do `work` at every pause of its long computations; what it raises ends them."""
    _rest.set(work)


def pause() -> None:
    """A moment at which a long computation may wait for other work of its thread, or be ended."""
    if work := _rest.get():
        work()
