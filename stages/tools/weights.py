"""What `hypernst weights` does: lists, fetches, checks and imports weights."""

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline import weights
from pipeline.errors import UserError, printable
from pipeline.profile import Profile
from stages.weights_import import importer


def table() -> str:
    """Every weight of the registry with its state, size, terms and origin."""
    return weights.table()


def take_in(files: Sequence[str], name: str, *, replace: bool, kind: str) -> str:
    """Import one file as `importer.import_file` does. Raises: UserError(2) when there is not exactly one file."""
    if len(files) != 1:
        raise UserError(f"weights import: got {len(files)} files; expected one FILE", 2)
    return str(importer.import_file(Path(files[0]), name, replace=replace, kind=kind))


def each(action: str, names: Sequence[str], profile: Profile) -> int:
    """Fetch or check (`action`) these weights, or all that the profile needs; the worst exit status.

    A failure is printed and the next weights follow. With a single name it is raised.
    """
    failed = 0
    for name in names or weights.needed(profile):
        try:
            done = importer.verify(name) if action == "check" else f"{name}: {importer.fetch_file(name)}"
            click.echo(printable(done))
        except UserError as fault:
            if len(names) == 1:
                raise
            click.echo(f"hypernst: {fault}", err=True)
            failed = max(failed, fault.status)
    return failed
