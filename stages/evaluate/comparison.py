"""Compare methods over content x style pairs, all through one code path: the paper's Table 1 for these weights.

A method is a function of two portraits that returns an image. To add one, add a line to METHODS.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from pipeline import files, hashing, images, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.progress import Progress, say
from stages.apply.portrait import Portrait, cached, held_out, shuffled
from stages.evaluate import comparison_page, overview, statistics
from stages.evaluate.comparison_page import SHOWN, folder
from stages.evaluate.methods import METHODS, Method
from stages.evaluate.metrics import METRICS, Metrics, metric_weights, sifid_titles

VERSION = 2


def run(ctx: Context, *, methods: Mapping[str, Callable[[Context], Method]] = METHODS, everything: bool = False) -> int:
    """Measure every method on the profile's grid of cached portraits; write results.json, table.md and the page.

    The portraits are held out from training; with `everything` any, for collections that nothing was trained on.
    Does nothing when the same weights, images and profile were measured before. A killed run resumes where it was.
    Raises: UserError when a cache is missing, or has no such portraits.
    """
    faces, styles = (_portraits(ctx, name, everything) for name in COLLECTIONS)
    split = {"name": "all" if everything else "test", "test_fraction": ctx.profile.shards.test_fraction}
    recipe = describe(ctx, list(methods), faces, styles) | {"split": split | {"seed": ctx.profile.seed}}
    stamp = stamp_of(recipe)
    out = folder(ctx)
    page = out / overview.EVALUATION
    report = _saved(out / "results.json")
    measured = report.get("stamp") == stamp
    if not measured:
        pairs = measure(ctx, methods, faces, styles, out, stamp)
        results = {name: _mean([p for p in pairs if p["method"] == name]) for name in methods}
        spread = statistics.describe(pairs, list(methods), METRICS, ctx.profile.seed)
        report = {"stamp": stamp, "methods": results} | spread | recipe
        files.write_atomic(out / "table.md", comparison_page.markdown(report).encode())
        files.write_atomic(out / "results.json", json.dumps(report, indent=1).encode())
    comparison_page.write(ctx, report, faces, styles, page, ctx.run / overview.INDEX)
    overview.write(ctx)
    say(f"eval: up to date, {page}" if measured else f"eval: {page}\n{comparison_page.markdown(report)}")
    return 0


def stamp_of(recipe: Mapping[str, Any]) -> str:
    """The hash by which a result is recognised: of all that decides it."""
    return hashing.short_hash(json.dumps(recipe, sort_keys=True))


def describe(ctx: Context, methods: list[str], faces: list[Portrait], styles: list[Portrait]) -> dict[str, Any]:
    """All that decides the numbers: metrics and their weights, the methods' weights, the images, the profile."""
    profile = ctx.profile
    generator = profile.generator
    names = [name for name in ("adain-vgg19", "adain-decoder", generator.weights, generator.head) if name]
    if profile.train.weights and weights.local(profile.train.weights):
        names.append(profile.train.weights)
    checkpoint = ctx.run / "checkpoint.safetensors"
    digest = hashing.short_hash("".join(_digest(p) for p in (*faces, *styles)))
    return {
        "version": VERSION,
        "metrics": {
            "weights": {name: weights.sha256(name) for name in metric_weights(ctx)},
            "lpips": "v0.1, stylised against content",
            "sifid": "stylised against style, a sample a position",
            **sifid_titles(ctx),
            "size": profile.align.size,
            "seconds": f"core forward on {ctx.device}, inputs cached, median after one warm-up",
        },
        "weights": {name: weights.sha256(name) for name in names}
        | ({"checkpoint": hashing.sha256(checkpoint)} if checkpoint.exists() else {}),
        "pictures": {"contents": [p.key for p in faces], "styles": [p.key for p in styles], "digest": digest},
        "compared": methods,
        "profile": dataclasses.asdict(profile),
    }


@dataclass(frozen=True)
class Cell:
    """One pair by one method: the indexes of content and style, the image u8 [H, W, 3], seconds, METRICS by name."""

    method: str
    content: int
    style: int
    image: np.ndarray
    seconds: float
    figures: dict[str, float]


def cells(
    ctx: Context,
    metrics: Metrics,
    methods: Mapping[str, Callable[[Context], Method]],
    faces: list[Portrait],
    styles: list[Portrait],
    skip: Callable[[str, Portrait, Portrait], bool] = lambda *_: False,
) -> Iterator[Cell]:
    """Every method over every content x style pair, except those to `skip`. All results come from this loop."""
    summaries = [metrics.summary(s.image) for s in styles]
    progress = Progress("pairs", len(methods) * len(faces) * len(styles), "pair")
    for name, open_method in methods.items():
        method = None
        for i, face in enumerate(faces):
            todo = [j for j, s in enumerate(styles) if not skip(name, face, s)]
            progress.add(len(styles) - len(todo))
            features = metrics.features(face.image) if todo else None
            for j in todo:
                if method is None:
                    method = open_method(ctx)
                    method(face, styles[j])  # warm-up
                image, seconds = _timed(ctx, method, face, styles[j])
                yield Cell(name, i, j, image, seconds, metrics.compare(image, features, summaries[j]))
                progress.add(1)
    progress.close()


def measure(
    ctx: Context,
    methods: Mapping[str, Callable[[Context], Method]],
    faces: list[Portrait],
    styles: list[Portrait],
    out: Path,
    stamp: str,
) -> list[dict[str, Any]]:
    """Measure each pair by each method. Pairs that are in pairs-<stamp>.jsonl from an earlier run are not repeated."""
    log = out / f"pairs-{stamp}.jsonl"
    done = {(p["method"], p["content"], p["style"]): p for p in files.read_lines(log)}
    earlier = set(done)

    def skip(name: str, face: Portrait, style: Portrait) -> bool:
        return (name, face.key, style.key) in earlier

    with lock(out, "eval"), files.LineLog(log) as lines:
        for cell in cells(ctx, Metrics(ctx), methods, faces, styles, skip):
            if cell.content < SHOWN and cell.style < SHOWN:
                name = f"{cell.method}-{cell.content}-{cell.style}.jpg"
                files.write_atomic(out / "cells" / name, images.encode(cell.image, ".jpg"))
            face, style = faces[cell.content].key, styles[cell.style].key
            row = {"method": cell.method, "content": face, "style": style, "seconds": cell.seconds} | cell.figures
            done[cell.method, face, style] = row
            lines.add(row)
    return [done[name, f.key, s.key] for name in methods for f in faces for s in styles]


def _portraits(ctx: Context, collection: str, everything: bool) -> list[Portrait]:
    """The portraits to measure, at most as many as the profile and --limit say; fewer are told, none is an error."""
    wanted = ctx.profile.eval.contents if collection == "content" else ctx.profile.eval.styles
    wanted = wanted if ctx.limit is None else min(wanted, ctx.limit)
    found = list(cached(ctx, collection, wanted, shuffled if everything else held_out))
    if everything and not found:
        raise UserError(f"eval: {ctx.cache} holds no {collection} portraits; run `hypernst align` first")
    if len(found) < wanted and not everything:
        lack = f"eval: {len(found)} of {wanted} {collection} portraits are held out from training (shards.test_fraction"
        way_out = "add images, raise it and train again, or use --all if nothing was trained on these images"
        lack = f"{lack} = {ctx.profile.shards.test_fraction:g}); {way_out}"
        if not found:
            raise UserError(lack)
        say(lack)
    return found


def _digest(portrait: Portrait) -> str:
    parts = (portrait.image, portrait.region, portrait.latent, portrait.codes)
    return portrait.key + hashing.short_hash("".join(np.ascontiguousarray(p).tobytes().hex() for p in parts))


def _timed(ctx: Context, method: Method, content: Portrait, style: Portrait) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    image = method(content, style)
    if ctx.device.startswith("cuda"):
        torch.cuda.synchronize()
    return image, time.perf_counter() - start


def _saved(path: Path) -> dict[str, Any]:
    """The report of an earlier run; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def _mean(pairs: list[dict[str, Any]]) -> dict[str, float]:
    means = {name: round(mean(p[name] for p in pairs), 6) for name in METRICS}
    return means | {"seconds_per_image": round(median(p["seconds"] for p in pairs), 4), "pairs": len(pairs)}
