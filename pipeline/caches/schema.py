"""What a cache row is: columns by name."""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]  # column name -> array, bytes or str


@dataclass(frozen=True)
class Column:
    """One dataset: a numpy dtype with the shape of a row, or "bytes" / "text" of any length a row."""

    dtype: str
    shape: tuple[int, ...] = ()
