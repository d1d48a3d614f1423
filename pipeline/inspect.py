"""Says what is in a cache file, a part or the shards: datasets, shapes, ranges, NaNs, provenance; draws rows."""

import base64
import html as markup
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import shards, store
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.store import Cache
from pipeline.stream import Samples

SCAN_BYTES = 1 << 21  # of a dataset read for its range, in stretches evenly spread over it
STRETCHES = 32
BLOCK = 1 << 23  # bytes at once when all of it is read
DRAWN = 8  # rows in a picture or page
NEAREST = 3  # styles beside a row
SIBLINGS = {"images": ("image",), "masks": ("region",), "latents": ("latent",),
            "aladin": ("boxes", "iou", "valid", "code", "image_code")}

Generate = Callable[[Mapping[str, Any], np.ndarray], np.ndarray]
Table = list[tuple[str, ...]]


def run(path: Path, *, key: str | None = None, html: Path | None = None, png: Path | None = None, full: bool = False,
        generate: Generate | None = None) -> str:
    """A report on `path` (a cache, a part, shards, their index.json or a tar, safetensors); `key` adds that row.

    Ranges are those of evenly spread rows unless `full`. `png` and `html` get pictures of that row, or of the first
    few; `generate(provenance, latents [N,L,D])` gives the pictures of latents, RGB u8 [N,H,W,3].
    Raises: Fault when the file is damaged or there is no such key.
    """
    kind = (_Weights if path.suffix == ".safetensors" else
            _Shards if path.is_dir() or path.suffix in (".tar", ".json") else _CacheFile)(path)
    text = kind.report(full)
    if key is not None:
        text += f"\n\n{key}\n" + "\n".join(f"  {name:<12} {_value(v)}" for name, v in kind.row(key).items())
    if png or html:
        from pipeline import draw

        keys = [key] if key else kind.keys()[:DRAWN]
        if not keys:
            raise Fault(f"{path}: holds no rows to draw", 2)
        rows = kind.pictures(keys)
        text += _drawn_latents(rows, generate)
        _add_nearest(rows, kind.styles())
        strips = {k: draw.row(k, data) for k, data in rows.items()}
        if png:
            write_atomic(png, draw.png(draw.sheet(list(strips.values()))))
        if html:
            write_atomic(html, _page(path, text, {k: draw.png(s) for k, s in strips.items()}).encode())
    return text


class _CacheFile:
    """A cache or part as `run` sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        part = path.parent.suffix == ".parts"
        self.name = path.parent.stem if part else path.stem
        self.folder = path.parent.parent if part else path.parent

    def keys(self) -> list[str]:
        return store.keys(self.path)

    def styles(self) -> Path:
        return self.folder.parent / "style"

    def row(self, key: str) -> dict[str, Any]:
        with Cache(self.path) as cache:
            return cache.rows([key], list(cache.columns))[0]

    def pictures(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of `keys` with what the caches beside this one know of them."""
        rows: dict[str, dict[str, Any]] = {key: {} for key in keys}
        for name, columns in SIBLINGS.items():
            file = self.path if name == self.name else self.folder / f"{name}.h5"
            if not file.exists():
                continue
            with Cache(file) as cache:
                known = set(cache.keys())
                found = [key for key in keys if key in known]
                wanted = [c for c in columns if c in cache.columns]
                made = {"made": cache.provenance} if name == "latents" else {}
                limits = {"limits": cache.provenance.get("params")} if name == "aladin" else {}
                for key, row in zip(found, cache.rows(found, wanted), strict=True):
                    rows[key] |= row | made | limits
        return rows

    def report(self, full: bool) -> str:
        with Cache(self.path) as cache:
            keys, count = cache.keys(), len(cache)
            head = [f"{self.path}: {count} rows, {cache.length('rejects/key')} rejects, "
                    f"{self.path.stat().st_size / 1e6:.1f} MB"]
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
                spread = _range(_blocks(cache, name, full)) if name in cache.columns and count else ""
                table.append((name, _shape(d.shape), kind, _shape(d.chunks), filters, spread))
            return "\n".join([*head, *_provenance(cache.provenance), "", *_columns(table)])


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

    def styles(self) -> Path:
        return self.folder.parent / "style"

    def row(self, key: str) -> dict[str, Any]:
        for shard in self.shards:
            if key in shard.keys:
                samples = Samples(self.folder, shard.collection, shard.split)
                return samples[samples.keys().index(key)]
        raise Fault(f"{self.folder}: no key {key!r} in {len(self.shards)} shards")

    def pictures(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The samples of `keys`, named as a cache's columns are."""
        found = {key: self.row(key) for key in keys}
        return {key: {**s, "image_code": s["codes"][-1], "made": self.provenance,
                      **{n: np.asarray(s["meta"][n]) for n in ("boxes", "iou", "valid") if n in s["meta"]}}
                for key, s in found.items()}

    def report(self, full: bool) -> str:
        count, size = sum(s.samples for s in self.shards), sum(s.bytes for s in self.shards)
        table: Table = [("shard", "samples", "MB", "sha256", "first key")]
        table += [(s.name, str(s.samples), f"{s.bytes / 1e6:.1f}", s.sha256[:12], s.keys[0]) for s in self.shards]
        head = f"{self.folder}: {count} samples in {len(self.shards)} shards, {size / 1e6:.1f} MB"
        return "\n".join([head, *_provenance(self.provenance), "", *_columns(table), "",
                          *_columns(self._members(full))])

    def _members(self, full: bool) -> Table:
        """Shape, dtype and range of each member, a collection and split at a time."""
        table: Table = [("samples of", "member", "shape", "dtype", "range" if full else "range (spread samples)")]
        for group in sorted({(s.collection, s.split) for s in self.shards}):
            samples = Samples(self.folder, *group)
            mine = np.flatnonzero(np.repeat([s.name in {m.name for m in self.shards} for s in samples.shards],
                                            [s.samples for s in samples.shards]))
            chosen = mine if full else mine[np.unique(np.linspace(0, len(mine) - 1, STRETCHES).astype(int))]
            for name in ("image", "region", "latent", "codes"):
                first = samples[int(chosen[0])][name]
                spread = _range(samples[int(n)][name][None] for n in chosen)
                table.append(("-".join(group), name, _shape(first.shape), str(first.dtype), spread))
        return table


class _Weights(_CacheFile):
    """Weights or a checkpoint as `run` sees them; `key` names a tensor."""

    def keys(self) -> list[str]:
        return []

    def pictures(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        raise Fault(f"{self.path}: tensors are not drawn", 2)

    def row(self, key: str) -> dict[str, Any]:
        tensors = self._load()[0]
        if key not in tensors:
            raise Fault(f"{self.path}: no tensor {key!r} among {len(tensors)}", 2)
        return {"values": tensors[key].float().numpy()}

    def report(self, full: bool) -> str:
        tensors, meta = self._load()
        count = sum(t.numel() for t in tensors.values())
        head = f"{self.path}: {len(tensors)} tensors, {count} numbers, {self.path.stat().st_size / 1e6:.1f} MB"
        table: Table = [("tensor", "shape", "dtype", "range" if full else "range (--full)")]
        table += [(name, _shape(tuple(t.shape)) or "-", str(t.dtype).removeprefix("torch."),
                   _range(iter([t.float().numpy()])) if full else "") for name, t in tensors.items()]
        return "\n".join([head, *_provenance(meta), "", *_columns(table)])

    def _load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from pipeline import checkpoint  # and with it torch, which caches do without

        return checkpoint.load(self.path)


def _blocks(cache: Cache, name: str, full: bool) -> Iterator[Any]:
    """The rows of a column, or some stretches of them evenly spread over it."""
    count = min(cache.length(name), len(cache))
    column = cache.columns[name]
    row = 1 << 16 if column.dtype in ("bytes", "text") else np.dtype(column.dtype).itemsize * int(np.prod(column.shape))
    step = max(1, (BLOCK if full else SCAN_BYTES // STRETCHES) // row)
    starts = range(0, count, step)
    if not full and len(starts) > STRETCHES:
        starts = [int(s) for s in np.linspace(0, count - step, STRETCHES)]  # type: ignore[assignment]
    for start in starts:
        yield cache.block(name, start, min(start + step, count))


def _range(blocks: Iterator[Any]) -> str:
    """`least .. most, mean, NaNs` of numbers, the lengths of bytes and text."""
    least, most, total, count, nan, unit, form = np.inf, -np.inf, 0.0, 0, 0, "", ".4g"
    for block in blocks:
        if isinstance(block, list):
            unit, form = " bytes" if isinstance(block[0], bytes) else " characters", ".0f"
            block = np.array([len(v) for v in block])
        values = block[~np.isnan(block)] if block.dtype.kind == "f" else block
        nan += block.size - values.size
        count += values.size
        if values.size:
            least, most = min(least, values.min()), max(most, values.max())
            total += float(values.sum(dtype=np.float64))
    missing = f", {nan} NaN" if nan else ""
    if not count:
        return "all NaN" if nan else ""
    return f"{least:{form}} .. {most:{form}}, mean {total / count:{form}}{unit}{missing}"


def _drawn_latents(rows: Mapping[str, dict[str, Any]], generate: Generate | None) -> str:
    """Give rows with a latent the picture it generates; what to add to the report where that cannot be done."""
    having = [row for row in rows.values() if "latent" in row]
    if not having or generate is None:
        return ""
    try:
        made = generate(having[0]["made"], np.stack([row["latent"] for row in having]))
    except Fault as fault:
        return f"\n\nlatents are drawn as grey levels: {fault}"
    for row, picture in zip(having, made, strict=True):
        row["generated"] = picture
    return ""


def _add_nearest(rows: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Give rows with a code the NEAREST styles by it: (key, cosine, picture), the row's own key left out."""
    having = {key: row for key, row in rows.items() if "image_code" in row}
    files = folder / "aladin.h5", folder / "images.h5"
    if not having or not all(file.exists() for file in files):
        return
    with Cache(files[0]) as codes, Cache(files[1]) as images:
        keys = codes.keys()
        wanted = _unit(np.stack([row["image_code"] for row in having.values()]))
        near = np.concatenate([wanted @ _unit(block).T for block in _blocks(codes, "image_code", True)], axis=1) \
            if keys else np.zeros((len(having), 0))
        for (key, row), likeness in zip(having.items(), near, strict=True):
            best = [i for i in np.argsort(-likeness)[:NEAREST + 1] if keys[i] != key][:NEAREST]
            found = images.rows([keys[i] for i in best], ["image"])
            row["nearest"] = [(keys[i], float(likeness[i]), r["image"]) for i, r in zip(best, found, strict=True)]


def _unit(codes: np.ndarray) -> np.ndarray:
    return codes / np.linalg.norm(codes, axis=1, keepdims=True).clip(1e-8)


def _provenance(provenance: dict[str, Any]) -> list[str]:
    """A line a setting, without the columns, which the table shows."""
    return [f"  {name:<8} {_value(value)}" for name, value in provenance.items() if name != "columns"]


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, np.ndarray):
        if value.size <= 24:
            return np.array2string(value, precision=4, separator=", ").replace("\n", "")
        return f"{value.dtype}{list(value.shape)}, {_range(iter([value]))}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _columns(table: Table) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  " + "  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in table]


def _page(path: Path, text: str, pictures: dict[str, bytes]) -> str:
    figures = "\n".join(f'<p><img alt="{markup.escape(k)}" src="data:image/png;base64,{base64.b64encode(p).decode()}">'
                        for k, p in pictures.items())
    name = markup.escape(str(path))
    return (f'<!doctype html><meta charset="utf-8"><title>{name}</title><h1>{name}</h1>\n'
            f"<pre>{markup.escape(text)}</pre>\n{figures}\n")
