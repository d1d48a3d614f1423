"""Says what is in a cache file, a part or the shards: datasets, shapes, ranges, NaNs, provenance. Also renders rows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.caches import reader
from pipeline.caches.reader import Cache
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.shards import index
from pipeline.shards.indexed import Samples
from stages.tools.inspect_images import add_nearest, page, render_latents
from stages.tools.inspect_values import (
    STRETCHES,
    Table,
    aligned,
    provenance_lines,
    range_text,
    shape_text,
    spread_blocks,
    value_text,
)

SHOWN = 8  # rows in an image or page
SIBLINGS = {
    "images": ("image",),
    "masks": ("region",),
    "latents": ("latent",),
    "aladin": ("boxes", "iou", "valid", "code", "image_code"),
}


def run(
    path: Path, *, key: str | None = None, html: Path | None = None, png: Path | None = None, full: bool = False
) -> str:
    """A report on `path`: a cache, a part, a folder of shards, its index.json, one tar, or a safetensors file.

    `key` adds that row. Ranges are those of evenly spread rows, or with `full` of all rows. `png` and `html` get images
    of the row `key`, else of the first SHOWN.
    Raises: UserError when the file is damaged or has no such key.
    """
    kind = (
        _SafetensorsFile
        if path.suffix == ".safetensors"
        else _Shards
        if path.is_dir() or path.suffix in (".tar", ".json")
        else _CacheFile
    )(path)
    text = kind.report(full)
    if key is not None:
        text += f"\n\n{key}\n" + "\n".join(f"  {name:<12} {value_text(v)}" for name, v in kind.row(key).items())
    if png or html:
        from pipeline import images
        from pipeline.reports import sheets
        from stages.tools import inspect_rows

        keys = [key] if key else kind.keys()[:SHOWN]
        if not keys:
            raise UserError(f"{path}: has no rows to draw; run the stage that fills it", 2)
        rows = kind.rows(keys)
        text += render_latents(rows)
        add_nearest(rows, kind.styles())
        strips = {k: inspect_rows.row(k, data) for k, data in rows.items()}
        if png:
            write_atomic(png, images.encode(sheets.stack(list(strips.values()))))
        if html:
            write_atomic(html, page(path, text, strips))
    return text


class _CacheFile:
    """A cache or part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        part = path.parent.suffix == ".parts"
        self.name = path.parent.stem if part else path.stem
        self.folder = path.parent.parent if part else path.parent

    def keys(self) -> list[str]:
        return reader.keys(self.path)

    def styles(self) -> Path:
        return self.folder.parent / "style"

    def row(self, key: str) -> dict[str, Any]:
        with Cache(self.path) as cache:
            return cache.rows([key], list(cache.columns))[0]

    def rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of `keys`, joined with those of the caches beside this one."""
        rows: dict[str, dict[str, Any]] = {key: {} for key in keys}
        for name, columns in SIBLINGS.items():
            file = self.path if name == self.name else self.folder / f"{name}.h5"
            if not file.exists():
                continue
            with Cache(file) as cache:
                cached = set(cache.keys())
                shared = [key for key in keys if key in cached]
                present = [c for c in columns if c in cache.columns]
                made = {"made": cache.provenance} if name == "latents" else {}
                limits = {"limits": cache.provenance.get("params")} if name == "aladin" else {}
                for key, row in zip(shared, cache.rows(shared, present), strict=True):
                    rows[key] |= row | made | limits
        return rows

    def report(self, full: bool) -> str:
        with Cache(self.path) as cache:
            keys, count = cache.keys(), len(cache)
            head = [
                f"{self.path}: {count} rows, {cache.length('rejects/key')} rejects, "
                f"{self.path.stat().st_size / 1e6:.1f} MB"
            ]
            if count:
                head.append(f"  keys     {keys[0]} .. {keys[-1]}")
            reasons = Counter(cache.reasons())
            head += [f"  rejected {n} x {reason}" for reason, n in reasons.most_common(5)]
            spread = "range" if full else "range (spread rows)"
            table: Table = [("dataset", "shape", "dtype", "chunk", "filters", spread)]
            for name in ["key", *cache.columns, "inputs", "digest", "rejects/key", "rejects/reason", "rejects/inputs"]:
                d = cache.dataset(name)
                kind = cache.columns[name].dtype if name in cache.columns else str(d.dtype)
                filters = "+".join(filter(None, (d.compression, "fletcher32" if d.fletcher32 else ""))) or "-"
                spread = range_text(spread_blocks(cache, name, full)) if name in cache.columns and count else ""
                table.append((name, shape_text(d.shape), kind, shape_text(d.chunks), filters, spread))
            return "\n".join([*head, *provenance_lines(cache.provenance), "", *aligned(table)])


class _Shards:
    """Shards: all of a folder, or one tar."""

    def __init__(self, path: Path) -> None:
        self.folder = path if path.is_dir() else path.parent
        self.provenance, listed = index.read_index(self.folder)
        self.shards = [s for s in listed if path.suffix != ".tar" or s.name == path.name]
        if not self.shards and path.suffix == ".tar":
            raise UserError(f"{path}: is not in {self.folder / 'index.json'}; run `hypernst shards`")

    def keys(self) -> list[str]:
        return [key for shard in self.shards for key in shard.keys]

    def styles(self) -> Path:
        return self.folder.parent / "style"

    def row(self, key: str) -> dict[str, Any]:
        for shard in self.shards:
            if key in shard.keys:
                samples = Samples(self.folder, shard.collection, shard.split)
                return samples[samples.keys().index(key)]
        raise UserError(f"{self.folder}: has no key {key!r} in {len(self.shards)} shards; leave --key out to see some")

    def rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The samples of `keys`, with the names of a cache's columns."""
        samples = {key: self.row(key) for key in keys}
        return {
            key: {
                **s,
                "image_code": s["codes"][-1],
                "made": self.provenance,
                **{n: np.asarray(s["meta"][n]) for n in ("boxes", "iou", "valid") if n in s["meta"]},
            }
            for key, s in samples.items()
        }

    def report(self, full: bool) -> str:
        count, size = sum(s.samples for s in self.shards), sum(s.bytes for s in self.shards)
        table: Table = [("shard", "samples", "MB", "sha256", "first key")]
        table += [(s.name, str(s.samples), f"{s.bytes / 1e6:.1f}", s.sha256[:12], s.keys[0]) for s in self.shards]
        head = f"{self.folder}: {count} samples in {len(self.shards)} shards, {size / 1e6:.1f} MB"
        return "\n".join(
            [head, *provenance_lines(self.provenance), "", *aligned(table), "", *aligned(self._members(full))]
        )

    def _members(self, full: bool) -> Table:
        """Shape, dtype and range of each member, per collection and split."""
        table: Table = [("samples of", "member", "shape", "dtype", "range" if full else "range (spread samples)")]
        for group in sorted({(s.collection, s.split) for s in self.shards}):
            samples = Samples(self.folder, *group)
            numbers = np.flatnonzero(
                np.repeat(
                    [s.name in {m.name for m in self.shards} for s in samples.shards],
                    [s.samples for s in samples.shards],
                )
            )
            spread = np.unique(np.linspace(0, len(numbers) - 1, STRETCHES).astype(int))
            chosen = numbers if full else numbers[spread]
            for name in ("image", "region", "latent", "codes"):
                first = samples[int(chosen[0])][name]
                text = range_text(samples[int(n)][name][None] for n in chosen)
                table.append(("-".join(group), name, shape_text(first.shape), str(first.dtype), text))
        return table


class _SafetensorsFile(_CacheFile):
    """Weights or a checkpoint; a key is the name of a tensor."""

    def keys(self) -> list[str]:
        return []

    def rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        raise UserError(f"{self.path}: tensors cannot be drawn; leave --png and --html out", 2)

    def row(self, key: str) -> dict[str, Any]:
        tensors = self._load()[0]
        if key not in tensors:
            raise UserError(
                f"{self.path}: has no tensor {key!r} among {len(tensors)}; leave --key out to see their names", 2
            )
        return {"values": tensors[key].float().numpy()}

    def report(self, full: bool) -> str:
        tensors, meta = self._load()
        count = sum(t.numel() for t in tensors.values())
        head = f"{self.path}: {len(tensors)} tensors, {count} numbers, {self.path.stat().st_size / 1e6:.1f} MB"
        table: Table = [("tensor", "shape", "dtype", "range" if full else "range (--full)")]
        table += [
            (
                name,
                shape_text(tuple(t.shape)) or "-",
                str(t.dtype).removeprefix("torch."),
                range_text(iter([t.float().numpy()])) if full else "",
            )
            for name, t in tensors.items()
        ]
        return "\n".join([head, *provenance_lines(meta), "", *aligned(table)])

    def _load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from pipeline.training import checkpoint  # and with it torch, which caches do without

        return checkpoint.load(self.path)
