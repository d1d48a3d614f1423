"""Tables for a terminal, whose long texts wrap."""

import io
import shutil
from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED = 10_000  # columns, where no terminal is: then each row stays on one line, for grep and the like


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """The rows under their columns' titles, as wide as the terminal, or as $COLUMNS says.

    `numbers` are the columns that are aligned on the right. Without any title there is no line of titles.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns), header_style="")
    width = shutil.get_terminal_size((UNLIMITED, 0)).columns
    names = min(max(cell_len(row[0]) for row in [columns, *rows]), width // 3)  # the names of rows give way last
    for i, title in enumerate(columns):
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        table.add_column(title, overflow="fold", justify=justify, width=None if i else names)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
