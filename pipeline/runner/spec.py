"""Describes a preprocessing stage: a small specification and a worker. The runner reads, writes and resumes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import SCHEMA
from pipeline.caches.schema import TEXT, Column, Row
from pipeline.context import Context
from pipeline.errors import UserError


@dataclass(frozen=True)
class Reject:
    """The result of a worker for an image that it cannot use; `reason` is shown to the user, in a few words."""

    reason: str


@dataclass(frozen=True)
class Item:
    """One input of a worker.

    `item["images.image"]` is the value of column `image` in the parent `images`: an array, bytes or str.
    A stage without parents reads the user's folder: `item["source"]` is a file's bytes, `item.path` its relative path.
    """

    key: str
    data: Mapping[str, Any]
    path: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.data[name]


@dataclass(frozen=True)
class Fallback:
    """A parameter that decides only what becomes of inputs in which the stage finds nothing.

    These are the rows whose `column` is 0, and the rejects whose reason begins with `reason`.
    """

    param: str
    column: str
    reason: str


Worker = Callable[[Sequence[Item]], Sequence[Row | Reject]]


@dataclass(frozen=True)
class StageSpec:
    """A preprocessing stage.

    `output` names the cache file it fills (`images` -> cache/<collection>/images.h5) and `columns` its datasets.
    `parents` maps each cache file it reads to the datasets it reads there. Without parents it reads the user's images.
    `producers` names the command that fills each parent; error messages show it.
    With `numbered`, its inputs are the numbers below that, in nine digits as keys, and it reads no images.
    `params` (plain JSON values), `weights` (name -> sha256) and `version` decide the result: a change in any of them
    makes the rows stale, one in the parameter of `fallback` only those that it decides. Raise `version` when the code
    of the stage changes the result; `news` says what it changes.
    `open(ctx)` is called only when there is work. It loads weights and returns the worker. The worker maps a batch of
    items to as many rows or rejects, in the same order. A row must not depend on the other items in the batch.
    `batch` is the number of items per call of the worker; it does not change the result.
    """

    name: str
    output: str
    columns: Mapping[str, Column]
    open: Callable[[Context], Worker]
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    producers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    news: str = ""
    fallback: Fallback | None = None
    batch: int = 8
    numbered: int = 0

    def recipe(self) -> dict[str, Any]:
        """Everything that decides a row besides its inputs, as JSON values."""
        columns = {name: [c.dtype, *c.shape] for name, c in self.columns.items()}
        recipe = {
            "stage": self.name,
            "version": self.version,
            "params": dict(self.params),
            "weights": dict(self.weights),
            "columns": columns,
            "schema": SCHEMA,
        }
        return json.loads(json.dumps(recipe, sort_keys=True))

    def check(self, row: Row, key: str) -> Row:
        """The row with each value converted to its column's dtype.

        Raises: UserError when a column is missing or unknown, or a value has another shape.
        """
        if set(row) != set(self.columns):
            raise UserError(f"stage {self.name}, key {key}: the row has {sorted(row)}, expected {sorted(self.columns)}")
        out: Row = {}
        for name, column in self.columns.items():
            if column.dtype == "bytes":
                out[name] = bytes(row[name])
            elif column.dtype in TEXT:
                out[name] = str(row[name])
            else:
                value = np.asarray(row[name])
                if value.shape != column.shape:
                    raise UserError(
                        f"stage {self.name}, key {key}: {name} has shape {value.shape}, expected {column.shape}"
                    )
                out[name] = value.astype(column.dtype)
        return out
