"""The columns, rows and entries of a cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = dict[str, Any]  # column name -> array, bytes or str


@dataclass(frozen=True)
class Column:
    """One dataset: a numpy dtype with the shape of one row; or "bytes" or "text", of variable length per row.

    A "label" is text that tells people where a row comes from. It is no part of the row's digest: when the user's file
    gets another name, the row stays the same.
    """

    dtype: str
    shape: tuple[int, ...] = ()


class Layout(NamedTuple):
    """What the files of one cache have alike: columns, the number of inputs of a row, and how the rows are made."""

    columns: Mapping[str, Column]
    parents: int
    provenance: dict[str, Any]


class Entry(NamedTuple):
    """Where the row of a key lies, and the digests of its inputs; a reject has row -1 and a reason."""

    file: int
    row: int
    inputs: bytes
    digest: bytes
    reason: str = ""


TEXT = ("text", "label")
VARYING = ("bytes", *TEXT)
