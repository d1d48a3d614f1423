"""Progress as people want it: a tqdm bar on a terminal, a line now and then elsewhere."""

import sys
import time

from tqdm import tqdm

from pipeline.errors import printable

EVERY = 30.0  # seconds between lines off a terminal


class Progress:
    """Counts items done and rejected towards `total`."""

    def __init__(self, name: str, total: int, unit: str = "img") -> None:
        self.name, self.total, self.done, self.rejected = name, total, 0, 0
        self._start = self._said = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit=unit) if sys.stderr.isatty() else None

    def add(self, done: int, rejected: int = 0) -> None:
        """Count a batch."""
        self.done += done
        self.rejected += rejected
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(done)
            self._bar.set_postfix(rejected=self.rejected, refresh=False)
        elif now - self._said > EVERY:
            self._said = now
            rate = self.done / (now - self._start)
            left = (self.total - self.done) / rate
            print(
                f"{self.name}: {self.done}/{self.total}, {rate:.3g}/s, {left:.0f} s left, {self.rejected} rejected",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def say(message: str) -> None:
    """One line for the user, above any bar."""
    tqdm.write(printable(message), file=sys.stderr)
