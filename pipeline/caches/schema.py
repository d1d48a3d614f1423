"""The columns and rows of a cache."""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]  # column name -> array, bytes or str


@dataclass(frozen=True)
class Column:
    """One dataset: a numpy dtype with the shape of one row; or "bytes" or "text", of variable length per row."""

    dtype: str
    shape: tuple[int, ...] = ()
