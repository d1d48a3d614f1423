"""Says what is in a cache, volume, part or shards: datasets, shapes, ranges, NaNs, provenance. Also renders rows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline import ours
from pipeline.caches import reader
from pipeline.caches.reader import Cache
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.shards import index
from pipeline.shards.indexed import Samples
from stages.tools.inspect_images import add_nearest, page, render_latents
from stages.tools.inspect_report import report
from stages.tools.inspect_values import (
    STRETCHES,
    plain,
    spread,
    spread_blocks,
    value_text,
)

SHOWN = 8  # rows in an image or page
BESIDE = ("inputs", "digest", "rejects/key", "rejects/reason", "rejects/inputs")  # datasets of any cache
SIBLINGS = {
    "images": ("image",),
    "masks": ("region",),
    "latents": ("latent",),
    "aladin": ("boxes", "iou", "valid", "code", "image_code"),
}


def run(
    path: Path, *, key: str | None = None, html: Path | None = None, png: Path | None = None, full: bool = False
) -> str:
    """A report on `path`: a cache, volume or part, a folder of shards, its index.json, one tar, or a safetensors file.

    `key` adds that row. Ranges are those of evenly spread rows, or with `full` of all rows. `png` and `html` get images
    of the row `key`, else of the first SHOWN.
    Raises: UserError when the file is damaged or has no such key.
    """
    kind = _open(path)
    text = report(kind.facts(full))
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


def facts(path: Path, *, key: str | None = None, full: bool = False) -> dict[str, Any]:
    """What `run` reports, as values for JSON; the row `key` under "row". Raises: UserError as `run`."""
    kind = _open(path)
    found = kind.facts(full) | ({} if key is None else {"row": kind.row(key)})
    return cast(dict[str, Any], plain(found))


def _open(path: Path) -> "_CacheFile | _Shards":
    if path.suffix == ".safetensors":
        return _SafetensorsFile(path)
    return (_Shards if path.is_dir() or path.suffix in (".tar", ".json") else _CacheFile)(path)


class _CacheFile:
    """A cache, a volume or a part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        part = path.parent.suffix in ours.HOLDS
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

    def facts(self, full: bool) -> dict[str, Any]:
        with Cache(self.path) as cache:
            keys = sorted(cache.keys())
            files = {self.path, *cache.files}
            return {
                "path": str(self.path),
                "rows": len(cache),
                "rejects": cache.length("rejects/key"),
                "bytes": sum(file.stat().st_size for file in files),
                "volumes": len(cache.listed),
                "keys": [keys[0], keys[-1]] if keys else [],
                "rejected": dict(Counter(cache.reasons()).most_common()),
                "provenance": cache.provenance,
                "full": full,
                "datasets": [self._dataset(cache, name, full) for name in ("key", *cache.columns, *BESIDE)],
            }

    def _dataset(self, cache: Cache, name: str, full: bool) -> dict[str, Any]:
        d = cache.volume(0).dataset(name)
        return {
            "dataset": name,
            "shape": (cache.length(name), *d.shape[1:]),
            "dtype": cache.columns[name].dtype if name in cache.columns else str(d.dtype),
            "chunk": d.chunks,
            "filters": "+".join(filter(None, (d.compression, "fletcher32" if d.fletcher32 else ""))) or "-",
            "range": spread(spread_blocks(cache, name, full)) if name in cache.columns and len(cache) else None,
        }


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

    def facts(self, full: bool) -> dict[str, Any]:
        return {
            "path": str(self.folder),
            "samples": sum(s.samples for s in self.shards),
            "bytes": sum(s.bytes for s in self.shards),
            "provenance": self.provenance,
            "full": full,
            "shards": [
                {"shard": s.name, "samples": s.samples, "bytes": s.bytes, "sha256": s.sha256, "first_key": s.keys[0]}
                for s in self.shards
            ],
            "members": self._members(full),
        }

    def _members(self, full: bool) -> list[dict[str, Any]]:
        """Shape, dtype and range of each member, per collection and split."""
        found = []
        for group in sorted({(s.collection, s.split) for s in self.shards}):
            samples = Samples(self.folder, *group)
            numbers = np.flatnonzero(
                np.repeat(
                    [s.name in {m.name for m in self.shards} for s in samples.shards],
                    [s.samples for s in samples.shards],
                )
            )
            evenly = np.unique(np.linspace(0, len(numbers) - 1, STRETCHES).astype(int))
            chosen = numbers if full else numbers[evenly]
            for name in ("image", "region", "latent", "codes"):
                first = samples[int(chosen[0])][name]
                values = spread(samples[int(n)][name][None] for n in chosen)
                member = {"member": name, "shape": first.shape, "dtype": str(first.dtype), "range": values}
                found.append({"samples_of": "-".join(group), **member})
        return found


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

    def facts(self, full: bool) -> dict[str, Any]:
        tensors, meta = self._load()
        return {
            "path": str(self.path),
            "numbers": sum(t.numel() for t in tensors.values()),
            "bytes": self.path.stat().st_size,
            "provenance": meta,
            "full": full,
            "tensors": [
                {
                    "tensor": name,
                    "shape": tuple(t.shape),
                    "dtype": str(t.dtype).removeprefix("torch."),
                    "range": spread(iter([t.float().numpy()])) if full else None,
                }
                for name, t in tensors.items()
            ],
        }

    def _load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from pipeline.training import checkpoint  # and with it torch, which caches do without

        return checkpoint.load(self.path)
