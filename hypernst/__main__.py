"""`python -m hypernst` is the command `hypernst`."""

import os


def main() -> None:
    """Run the command. An interrupt ends it in the same way while its modules are still imported."""
    try:
        from stages.cli.main import main as run

        run()
    except KeyboardInterrupt:
        os.write(2, b"hypernst: interrupted; what was finished is kept\n")
        os._exit(130)


if __name__ == "__main__":
    main()
