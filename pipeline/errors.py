"""The exception whose message users see, how text of unknown origin is made safe to print, and who takes interrupts."""

import signal
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

STOPPED = 128  # and a signal's number: the exit status of what it ends, as shells have it


class UserError(Exception):
    """A failure in one line: what happened, where, what was expected, and the way out.

    `status` becomes the exit status: 1 a stage failed, 2 wrong use or configuration, 3 too many rejects, from
    STOPPED on a signal.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(printable(" ".join(message.split())))
        self.status = status


MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "Insufficient memory")  # of torch and OpenCV
NO_MEMORY = "out of memory; close other programs, or make sizes and the batch smaller"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library, or Python itself, did not get the memory that it asked for."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in MEMORY)


@contextmanager
def interrupts_for_us() -> Iterator[None]:
    """Processes started meanwhile do not hear the Ctrl-C that a terminal sends to all; this one does, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield  # Windows
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def printable(text: str) -> str:
    """The text with control characters written as escapes: a file's name may hold commands for the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else _written(c) for c in text)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
