"""What a preprocessing stage is: a small description and a worker; the runner owns reading, writing and resuming."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import SCHEMA
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError


@dataclass(frozen=True)
class Reject:
    """A worker's answer for a picture it cannot use; `reason` is told to the user, in a few words."""

    reason: str


@dataclass(frozen=True)
class Item:
    """One input of a worker.

    `item["images.image"]` is the row of dataset `image` in the parent `images`: an array, or bytes, or str.
    Without parents a stage reads the user's folder: `item["source"]` is a file's bytes, `item.path` its relative path.
    """

    key: str
    data: Mapping[str, Any]
    path: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.data[name]


Worker = Callable[[Sequence[Item]], Sequence[Row | Reject]]


@dataclass(frozen=True)
class StageSpec:
    """A preprocessing stage.

    `output` names the cache file it fills (`images` -> cache/<collection>/images.h5) and `columns` its datasets.
    `parents` maps each cache file it reads to the datasets it reads there; none: it reads the user's pictures.
    `producers` names the command that fills each of them, for people.
    `params` (plain JSON values) and `weights` (name -> sha256) decide the result together with `version`, to be
    raised when the stage's own code changes the result: a change in any of them makes its rows stale.
    `open(ctx)` is called only when there is work: load weights there and return the worker, which maps a batch of
    items to as many rows or rejects, in order. A row's values must not depend on what else is in the batch.
    `batch` is how many items the worker gets at once; it never enters the result.
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
    batch: int = 8

    def recipe(self) -> dict[str, Any]:
        """All that decides a row besides its inputs; JSON values only."""
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
        """The row with each value in its column's dtype and shape.

        Raises: UserError when a column is missing, unknown or has another shape.
        """
        if set(row) != set(self.columns):
            raise UserError(f"stage {self.name}, key {key}: row has {sorted(row)}, expected {sorted(self.columns)}")
        out: Row = {}
        for name, column in self.columns.items():
            if column.dtype == "bytes":
                out[name] = bytes(row[name])
            elif column.dtype == "text":
                out[name] = str(row[name])
            else:
                value = np.asarray(row[name])
                if value.shape != column.shape:
                    raise UserError(
                        f"stage {self.name}, key {key}: {name} has shape {value.shape}, expected {column.shape}"
                    )
                out[name] = value.astype(column.dtype)
        return out
