"""`python -m hypernst` is the command `hypernst`."""

from stages.cli.main import main

if __name__ == "__main__":
    main()
