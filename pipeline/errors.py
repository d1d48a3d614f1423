"""The exception whose message users see, how text of unknown origin is made safe to print, and who hears signals."""

import signal
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

STOPPED = 128  # and a signal's number: the exit status of what it ends, as shells have it
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TWICE = 1.0  # seconds: `timeout` sends a signal to a process and to its group, of which it is


class Stop(KeyboardInterrupt):
    """A signal that ends the command as Ctrl-C does: what is open is closed, what is half written removed."""

    last = -TWICE

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number

    @classmethod
    def handle(cls, number: int, _: object = None) -> None:
        """The handler of the signal: raises it, but not what the same sender sends twice."""
        former, cls.last = cls.last, time.monotonic()
        if cls.last - former > TWICE:
            raise cls(number)


def stopped(number: int) -> str:
    """What a command says that this signal ended."""
    what = "interrupted" if number == signal.SIGINT else "terminated"
    return f"hypernst: {what}; what was finished is kept"


class UserError(Exception):
    """A failure in one line: what happened, where, what was expected, and the way out.

    `status` becomes the exit status: 1 a stage failed, 2 wrong use or configuration, 3 too many rejects, from
    STOPPED on a signal.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(printable(" ".join(message.split())))
        self.status = status


# Of torch and OpenCV, and of the system that loads their libraries.
MEMORY = (
    "can't allocate memory",
    "Storage size calculation overflowed",
    "Insufficient memory",
    "failed to map segment from shared object",
)
NO_MEMORY = "out of memory; close other programs, or make sizes and the batch smaller"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library, or Python itself, did not get the memory that it asked for."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in MEMORY)


@contextmanager
def interrupts_for_us() -> Iterator[None]:
    """Processes started meanwhile do not hear what a terminal sends to all, as Ctrl-C; this one does, and ends them.

    A library that meanwhile takes SIGTERM for itself, as Ray does, gives it back.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows
        return
    handler = signal.getsignal(signal.SIGTERM)
    former = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])  # which they inherit
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) != handler:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def printable(text: str) -> str:
    """The text with control characters written as escapes: a file's name may hold commands for the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else _written(c) for c in text)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
