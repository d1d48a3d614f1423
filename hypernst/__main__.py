"""`python -m hypernst` is the command `hypernst`."""

import os
import signal


def main() -> None:
    """Run the command. An interrupt ends it in the same way while its modules are still imported.

    There it ends it at once: as an exception it would be lost in what a library calls while it is imported.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # jobs in the background ignore it
    if heard:
        signal.signal(signal.SIGINT, _end)
    from stages.cli.main import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        _end()


def _end(*_: object) -> None:
    os.write(2, b"hypernst: interrupted; what was finished is kept\n")
    os._exit(130)


if __name__ == "__main__":
    main()
