"""The command `hypernst`, from a wheel and from a checkout.

A wheel installs only `hypernst/`, with `pipeline/`, `models/`, `stages/`, `profiles/` and `weights/` inside: directly
in site-packages these names would collide with those of others. The code is imported by the same names everywhere, so
this process, and no other, looks for them first in the folder that holds them.
"""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line."""
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here if (here / "pipeline").is_dir() else here.parent))
    from stages.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
