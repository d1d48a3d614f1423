"""Tables for a terminal, whose long texts wrap."""

import io
import shutil
import textwrap
from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 160  # columns
UNLIMITED = 10_000  # columns, where no terminal is: then each row stays on one line, for grep and the like


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = (), long: int = 0
) -> str:
    """The rows under their columns' titles, as wide as the terminal, or as $COLUMNS says.

    `numbers` are the columns that are aligned on the right. Without any title there is no line of titles. The last
    `long` columns hold sentences: on a terminal narrower than WIDE these stand below their row.
    """
    width = shutil.get_terminal_size((UNLIMITED, 0)).columns
    if not long or width >= WIDE:
        return _table(columns, rows, numbers, width, width // 3)
    lines = _table(columns[:-long], [row[:-long] for row in rows], numbers, width, width).splitlines()
    if len(lines) != 1 + len(rows):  # a row does not fit into one line
        return _table(columns, rows, numbers, width, width // 3)
    for i, row in enumerate(rows, 1):
        for title, text in zip(columns[-long:], row[-long:], strict=True):
            lines[i] += "\n" + textwrap.fill(f"{title}: {text}", width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str], width: int, first: int
) -> str:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns), header_style="")
    names = min(max(cell_len(row[0]) for row in [columns, *rows]), first)  # the names of rows give way last
    for i, title in enumerate(columns):
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        table.add_column(title, overflow="fold", justify=justify, width=None if i else names)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
