"""Says what is in a cache file, a part or the shards: datasets, shapes, ranges, NaNs, provenance; draws rows."""

import base64
import html as markup
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import shards, store
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.store import Cache
from pipeline.stream import Samples

SCAN_BYTES = 1 << 26  # of a dataset read for its range; of a larger one, evenly spread rows
DRAWN = 8  # rows in a picture or page
SIBLINGS = {"images": ("image",), "masks": ("region",), "aladin": ("boxes", "code"), "latents": ("latent",)}


def run(path: Path, *, key: str | None = None, html: Path | None = None, png: Path | None = None) -> str:
    """A report on `path` (a cache, a part, a folder of shards, its index.json or a tar); `key` adds that row.

    `png` and `html` get pictures of that row, or of the first few.
    Raises: Fault when the file is damaged or there is no such key.
    """
    kind = _Shards(path) if path.is_dir() or path.suffix in (".tar", ".json") else _CacheFile(path)
    text = kind.report()
    if key is not None:
        text += f"\n\n{key}\n" + "\n".join(f"  {name:<12} {_value(v)}" for name, v in kind.row(key).items())
    if png or html:
        from pipeline import draw

        strips = {k: draw.row(k, data) for k, data in kind.pictures([key] if key else kind.keys()[:DRAWN])}
        if not strips:
            raise Fault(f"{path}: holds no rows to draw", 2)
        if png:
            write_atomic(png, draw.png(draw.sheet(list(strips.values()))))
        if html:
            write_atomic(html, _page(path, text, {k: draw.png(s) for k, s in strips.items()}).encode())
    return text


class _CacheFile:
    """A cache or part as `run` sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keys(self) -> list[str]:
        return store.keys(self.path)

    def row(self, key: str) -> dict[str, Any]:
        with Cache(self.path) as cache:
            return cache.rows([key], list(cache.columns))[0]

    def pictures(self, keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of `keys` with what the caches beside this one know of them."""
        files = {self.path.stem: self.path} | {n: self.path.with_name(f"{n}.h5") for n in SIBLINGS}
        found = {name: set(store.keys(file)) for name, file in files.items() if file.exists()}
        for key in keys:
            data: dict[str, Any] = {}
            for name in found:
                if key in found[name]:
                    with Cache(files[name]) as cache:
                        data |= cache.rows([key], [c for c in SIBLINGS.get(name, ()) if c in cache.columns])[0]
            yield key, data

    def report(self) -> str:
        with Cache(self.path) as cache:
            h5 = cache.h5
            size = self.path.stat().st_size
            head = f"{self.path}: {len(h5['key'])} rows, {len(h5['rejects/key'])} rejects, {size / 1e6:.1f} MB"
            table = [("dataset", "shape", "dtype", "chunk", "filters", "range")]
            for name in ["key", *cache.columns, "inputs", "digest", "rejects/key", "rejects/reason", "rejects/inputs"]:
                d = h5[name]
                kind = cache.columns[name].dtype if name in cache.columns else str(d.dtype)
                filters = "+".join(filter(None, (d.compression, "fletcher32" if d.fletcher32 else ""))) or "-"
                table.append((name, _shape(d.shape), kind, _shape(d.chunks), filters, _range(cache, name)))
            return "\n".join([head, *_provenance(cache.provenance), "", *_columns(table)])


class _Shards:
    """Shards as `run` sees them: all of a folder, or one tar."""

    def __init__(self, path: Path) -> None:
        self.folder = path if path.is_dir() else path.parent
        self.provenance, listed = shards.read_index(self.folder)
        self.shards = [s for s in listed if path.suffix != ".tar" or s.name == path.name]
        if not self.shards and path.suffix == ".tar":
            raise Fault(f"{path}: not in {self.folder / 'index.json'}; run `hypernst shards`")

    def keys(self) -> list[str]:
        return [key for shard in self.shards for key in shard.keys]

    def row(self, key: str) -> dict[str, Any]:
        for shard in self.shards:
            if key in shard.keys:
                samples = Samples(self.folder, shard.collection, shard.split)
                return samples[samples.keys().index(key)]
        raise Fault(f"{self.folder}: no key {key!r} in {len(self.shards)} shards")

    def pictures(self, keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in keys:
            sample = self.row(key)
            boxes = {"boxes": sample["meta"]["boxes"]} if "boxes" in sample["meta"] else {}
            yield key, sample | boxes

    def report(self) -> str:
        count, size = sum(s.samples for s in self.shards), sum(s.bytes for s in self.shards)
        table = [("shard", "samples", "MB", "sha256", "first key")]
        table += [(s.name, str(s.samples), f"{s.bytes / 1e6:.1f}", s.sha256[:12], s.keys[0]) for s in self.shards]
        head = f"{self.folder}: {count} samples in {len(self.shards)} shards, {size / 1e6:.1f} MB"
        members = f"  members of a sample: {', '.join(shards.MEMBERS)}"
        return "\n".join([head, members, *_provenance(self.provenance), "", *_columns(table)])


def _range(cache: Cache, name: str) -> str:
    """`least .. most, mean, NaNs` of a numeric column, from evenly spread rows when it is large."""
    d = cache.h5[name]
    if name not in cache.columns or cache.columns[name].dtype in ("bytes", "text") or not d.size:
        return ""
    step = -(-d.size * d.dtype.itemsize // SCAN_BYTES)
    values = np.concatenate([cache.block(name, i, i + 1) for i in range(0, len(d), step)]) if step > 1 else \
        cache.block(name, 0, len(d))
    nan = np.count_nonzero(np.isnan(values)) if values.dtype.kind == "f" else 0
    if nan == values.size:
        return "all NaN"
    spread = f"{np.nanmin(values):.4g} .. {np.nanmax(values):.4g}, mean {np.nanmean(values, dtype=np.float64):.4g}"
    return spread + (f", {nan} NaN" if nan else "") + (f" (every {step}th row)" if step > 1 else "")


def _provenance(provenance: dict[str, Any]) -> list[str]:
    """A line a setting, without the columns, which the table shows."""
    return [f"  {name:<8} {_value(value)}" for name, value in provenance.items() if name != "columns"]


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray):
        if value.size <= 24:
            return np.array2string(value, precision=4, separator=", ").replace("\n", "")
        return f"{value.dtype}{list(value.shape)}, {value.min():.4g} .. {value.max():.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _columns(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  " + "  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _page(path: Path, text: str, pictures: dict[str, bytes]) -> str:
    figures = "\n".join(f'<p><img alt="{markup.escape(k)}" src="data:image/png;base64,{base64.b64encode(p).decode()}">'
                        for k, p in pictures.items())
    name = markup.escape(str(path))
    return (f'<!doctype html><meta charset="utf-8"><title>{name}</title><h1>{name}</h1>\n'
            f"<pre>{markup.escape(text)}</pre>\n{figures}\n")
