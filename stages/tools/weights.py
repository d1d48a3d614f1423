"""What `hypernst weights` does: lists, fetches, checks and imports weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline import weights
from pipeline.errors import UserError, printable
from pipeline.profile import Profile
from pipeline.reports.text_tables import text_table
from stages.weights_import import importer


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries of `weights.entries` for people."""
    columns = ("name", "state", "MB", "needed by", "what", "licence", "origin")
    rows = [
        (
            entry["name"],
            entry["state"],
            f"{entry['mb']:.1f}" if entry["mb"] else "?",
            ", ".join(entry["needed_by"]) or "none",
            entry["what"],
            entry["licence"],
            entry["origin"],
        )
        for entry in entries
    ]
    text = text_table(columns, rows, numbers=["MB"], long=4)
    return f"{text}\nkept in {weights.folder()}; MB on this machine, or to be fetched"


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
