"""`python -m hypernst` is the command `hypernst`."""

import os
import signal


def main() -> None:
    """Run the command. Ctrl-C and SIGTERM end it in the same way while its modules are still imported.

    There it ends it at once: as an exception it would be lost in what a library calls while it is imported.
    """
    handlers = signal.default_int_handler, signal.SIG_DFL
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) in handlers]
    for number in numbers:  # jobs in the background ignore Ctrl-C
        signal.signal(number, _end)
    from pipeline.errors import STOPS, Stop
    from stages.cli.main import main as run

    for number in STOPS:
        if signal.getsignal(number) in (_end, signal.SIG_DFL):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else Stop.handle)
    try:
        run()
    except KeyboardInterrupt as stop:
        _end(getattr(stop, "number", signal.SIGINT))


def _end(number: int, *_: object) -> None:
    what = b"interrupted" if number == signal.SIGINT else b"terminated"
    os.write(2, b"hypernst: %s; what was finished is kept\n" % what)
    os._exit(128 + number)


if __name__ == "__main__":
    main()
