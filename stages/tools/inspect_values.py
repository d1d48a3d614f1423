"""Ranges, shapes and values as text."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.caches.reader import Cache
from pipeline.caches.schema import VARYING

SCAN_BYTES = 1 << 21  # bytes of a dataset that are read for its range, in stretches evenly spread over it
STRETCHES = 32
SHOWN = 24  # numbers of an array that are shown as they are
BLOCK = 1 << 23  # bytes read at once where all of a dataset is read
Table = list[tuple[str, ...]]


def spread_blocks(cache: Cache, name: str, full: bool) -> Iterator[Any]:
    """The rows of a column in blocks: all of them with `full`, else evenly spread stretches."""
    count = min(cache.length(name), len(cache))
    column = cache.columns[name]
    row = 1 << 16 if column.dtype in VARYING else np.dtype(column.dtype).itemsize * int(np.prod(column.shape))
    step = max(1, (BLOCK if full else SCAN_BYTES // STRETCHES) // row)
    starts = range(0, count, step)
    if not full and len(starts) > STRETCHES:
        starts = [int(s) for s in np.linspace(0, count - step, STRETCHES)]  # type: ignore[assignment]
    for start in starts:
        yield cache.block(name, start, min(start + step, count))


@dataclass(frozen=True)
class Spread:
    """The range of numbers, or of the lengths of bytes and text in `unit`; None where there is none but NaNs."""

    least: float | None
    most: float | None
    mean: float | None
    nan: int
    unit: str = ""

    def __str__(self) -> str:
        if self.least is None:
            return "all NaN" if self.nan else ""
        form = ".0f" if self.unit else ".4g"
        numbers = f"{self.least:{form}} .. {self.most:{form}}, mean {self.mean:{form}}"
        return f"{numbers}{f' {self.unit}' * bool(self.unit)}{f', {self.nan} NaN' * bool(self.nan)}"


def spread(blocks: Iterator[Any]) -> Spread:
    """The range of all values of the blocks."""
    least, most, total, count, nan, unit = np.inf, -np.inf, 0.0, 0, 0, ""
    for block in blocks:
        if isinstance(block, list):
            unit = "bytes" if isinstance(block[0], bytes) else "characters"
            block = np.array([len(v) for v in block])
        values = block[~np.isnan(block)] if block.dtype.kind == "f" else block
        nan += block.size - values.size
        count += values.size
        if values.size:
            least, most = min(least, values.min()), max(most, values.max())
            total += float(values.sum(dtype=np.float64))
    if not count:
        return Spread(None, None, None, nan, unit)
    return Spread(float(least), float(most), total / count, nan, unit)


def provenance_lines(provenance: dict[str, Any]) -> list[str]:
    """One line per setting, without the columns: the table shows these."""
    return [f"  {name:<8} {value_text(value)}" for name, value in provenance.items() if name != "columns"]


def value_text(value: Any) -> str:
    """A value in one line; a large array by its shape and range."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray):
        if value.size <= SHOWN:
            return np.array2string(value, precision=4, separator=", ").replace("\n", "")
        return f"{value.dtype}{list(value.shape)}, {spread(iter([value]))}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {value_text(v)}" for k, v in value.items()) or "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def plain(value: Any) -> Any:
    """A value for JSON: a large array by its type, shape and range, bytes by their number, NaN and infinity as None."""
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray) and value.size > SHOWN:
        return {"dtype": str(value.dtype), "shape": value.shape, "range": plain(spread(iter([value])))}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Spread):
        return {name: plain(part) for name, part in vars(value).items()}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as `3x256x256`."""
    return "x".join(map(str, shape))


def aligned(table: Table) -> list[str]:
    """The table's rows as lines, each column as wide as its widest text."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  " + "  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in table]
