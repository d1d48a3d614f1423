"""Compare methods over content x style pairs, all through one code path: the paper's Table 1 for these weights."""

import contextlib
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
from stages.evaluate import comparison_page, overview, statistics
from stages.evaluate import methods as catalogue
from stages.evaluate.comparison_page import SHOWN, folder
from stages.evaluate.methods import METHODS, Apply, Method
from stages.evaluate.metrics import METRICS, Metrics, metric_weights, sifid_titles
from stages.portraits.portrait import Portrait, cached, held_out, shuffled

VERSION = 4
PAIR = {"content", "style", "seconds"}  # what each line of a log tells besides its figures


def run(
    ctx: Context,
    *,
    methods: Mapping[str, Method] = METHODS,
    everything: bool = False,
    budget: int | None = None,
    strength: float = 1.0,
) -> int:
    """Measure every method on the profile's grid of cached portraits; write results.json, table.md and the page.

    The portraits are held out from training; with `everything` any, for collections that nothing was trained on.
    Methods that optimise each pair take `budget` pairs, by default the profile's. `strength` is that of all methods.
    A method that cannot run is told in the table. Does nothing when the same weights, images and profile were measured
    before. A killed run resumes where it was, and another method is measured alone.
    Raises: UserError when a cache is missing, or has no such portraits.
    """
    faces, styles = (_portraits(ctx, name, everything) for name in COLLECTIONS)
    budget = ctx.profile.eval.budget if budget is None else budget
    split = {"name": "all" if everything else "test", "test_fraction": ctx.profile.shards.test_fraction}
    common = describe(ctx, faces, styles) | {"split": split | {"seed": ctx.profile.seed}}
    hindered = {n: why for n, m in methods.items() if (why := catalogue.hindrance(ctx, m, budget, strength))}
    able = {name: method for name, method in methods.items() if name not in hindered}
    recipes = {name: recipe_of(ctx, name, method, strength) for name, method in able.items()}
    stamp = stamp_of(common | {"recipes": recipes, "hindered": hindered, "budget": budget})
    out = folder(ctx)
    page = out / overview.EVALUATION
    report = files.read_json(out / "results.json")
    measured = report.get("stamp") == stamp
    if not measured:
        logs = {n: out / f"pairs-{n}-{stamp_of(seen(common, able[n]) | recipe)}.jsonl" for n, recipe in recipes.items()}
        pairs, failed = measure(ctx, able, faces, styles, logs, budget, strength)
        done = [name for name in able if name not in failed]
        results = {name: _mean([p for p in pairs if p["method"] == name]) for name in done}
        spread = statistics.describe(pairs, done, METRICS, ctx.profile.seed)
        used = {name: digest for recipe in recipes.values() for name, digest in recipe["weights"].items()}
        report = {"stamp": stamp, "methods": results, "not_measured": hindered | failed} | spread | common
        compared = {name: method.description(ctx) for name, method in methods.items()}
        report |= {"weights": used, "recipes": recipes, "compared": compared, "budget": budget, "strength": strength}
        files.write_atomic(out / "table.md", comparison_page.markdown(report).encode())
        files.write_atomic(out / "results.json", json.dumps(report, indent=1).encode())
    comparison_page.write(ctx, report, faces, styles, page, ctx.run / overview.INDEX)
    overview.write(ctx)
    say(f"eval: up to date, {page}" if measured else f"eval: {page}\n{comparison_page.markdown(report)}")
    return 0


def stamp_of(recipe: Mapping[str, Any]) -> str:
    """The hash by which a result is recognised: of all that decides it."""
    return hashing.short_hash(json.dumps(recipe, sort_keys=True))


def seen(common: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """What of `describe` decides a method's numbers: one that reads images alone has them whatever else changes."""
    images = {name: value for name, value in common["pictures"].items() if name != "digest"}
    return dict(common) if not method.plain else {**common, "pictures": images, "profile": None}


def describe(ctx: Context, faces: list[Portrait], styles: list[Portrait]) -> dict[str, Any]:
    """All that decides the numbers of every method: metrics and their weights, the images, the profile."""
    digests = {
        name: hashing.short_hash("".join(_digest(p, whole) for p in (*faces, *styles)))
        for name, whole in (("images", False), ("digest", True))
    }
    settings = dataclasses.asdict(ctx.profile)
    for section in ("name", "eval", "baselines", "editing"):  # metrics, images and weights say what matters of them
        del settings[section]
    return {
        "version": VERSION,
        "metrics": {
            "weights": {name: weights.sha256(name) for name in metric_weights(ctx)},
            "lpips": "v0.1, stylised against content",
            "sifid": "stylised against style, a sample a position",
            **sifid_titles(ctx),
            "size": ctx.profile.align.size,
            "seconds": f"core forward on {ctx.device}, inputs cached, median after one warm-up (none if it optimises)",
        },
        "pictures": {"contents": [p.key for p in faces], "styles": [p.key for p in styles]} | digests,
        "profile": settings,
    }


def recipe_of(ctx: Context, name: str, method: Method, strength: float) -> dict[str, Any]:
    """What decides the numbers of one method besides `describe`: its weights, the run's if it is ours, its settings."""
    digests = {weight: weights.sha256(weight) for weight in method.weights(ctx)}
    checkpoint = ctx.run / "checkpoint.safetensors"
    if method.trained and checkpoint.exists():
        digests["checkpoint"] = hashing.sha256(checkpoint)
    version = {"version": method.version} if method.version else {}
    return {"method": name, "weights": digests, "note": method.note, "strength": strength} | version


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
    methods: Mapping[str, Method],
    faces: list[Portrait],
    styles: list[Portrait],
    skip: Callable[[str, Portrait, Portrait], bool] = lambda *_: False,
    *,
    budget: int | None = None,
    strength: float = 1.0,
    opened: Callable[[str, Apply], None] = lambda *_: None,
    failed: Callable[[str, UserError], None] | None = None,
) -> Iterator[Cell]:
    """Every method over its pairs, except those to `skip`. All results come from this loop.

    `opened` gets each method that is used. An optional one that cannot be opened goes to `failed`, if given.
    """
    summaries = [metrics.summary(s.image) for s in styles]
    for name, method in methods.items():
        pairs = pairs_of(method, len(faces), len(styles), budget)
        todo = [(i, j) for i, j in pairs if not skip(name, faces[i], styles[j])]
        progress = Progress(f"pairs of {name}", len(pairs), "pair")
        progress.add(len(pairs) - len(todo))
        apply, last = None, -1
        for i, j in todo:
            if apply is None:
                try:
                    apply = _opened(ctx, method, faces[i], styles[j], strength)
                except UserError as fault:
                    if failed is None or not method.optional:
                        raise
                    failed(name, fault)
                    break
                opened(name, apply)
            if i != last:
                features, last = metrics.features(faces[i].image), i
            image, seconds = _timed(ctx, apply, faces[i], styles[j])
            yield Cell(name, i, j, image, seconds, metrics.compare(image, features, summaries[j]))
            progress.add(1)
        progress.close()


def pairs_of(method: Method, contents: int, styles: int, budget: int | None = None) -> list[tuple[int, int]]:
    """The pairs of content and style to measure: all, or the first `budget` if the method optimises each.

    Those begin with a different content and style each, and a larger budget has those of a smaller one.
    """
    if not method.optimises:
        return [(i, j) for i in range(contents) for j in range(styles)]
    return [(i, (i + turn) % styles) for turn in range(styles) for i in range(contents)][:budget]


def _opened(ctx: Context, method: Method, content: Portrait, style: Portrait, strength: float) -> Apply:
    """The method as a function of two portraits, warmed up if that is quick. Raises: UserError when it cannot run."""
    apply = method.open(ctx)
    if method.optimises:
        return lambda content, style: _with_progress(apply, method.title, content, style)
    if method.interpolates:
        plain = apply
        apply = lambda content, style, strength=strength: plain(content, style, strength=strength)  # noqa: E731
    try:
        apply(content, style)
    except ValueError as error:  # such as a size that the network cannot take
        raise UserError(str(error)) from error
    return apply


def _with_progress(apply: Apply, title: str, content: Portrait, style: Portrait) -> np.ndarray:
    progress = Progress(f"{title}, one pair", 0, "step")

    def on_step(done: int, total: int) -> None:
        progress.total = total
        progress.add(done - progress.done)

    image = apply(content, style, on_step=on_step)
    progress.close()
    return image


def measure(
    ctx: Context,
    methods: Mapping[str, Method],
    faces: list[Portrait],
    styles: list[Portrait],
    logs: Mapping[str, Path],
    budget: int | None,
    strength: float,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure each pair by each method; also says why methods failed. Pairs in a method's log are not repeated."""
    out, failures = folder(ctx), dict[str, str]()

    def draw(file: str, image: np.ndarray) -> None:
        files.write_atomic(out / file, images.encode(image, ".jpg"))

    def opened(name: str, apply: Apply) -> None:
        for file, s in comparison_page.strengths(name) if methods[name].interpolates else ():
            draw(file, apply(faces[0], styles[0], strength=s))

    with lock(out, "eval"), contextlib.ExitStack() as stack:
        pairs = ((name, pair) for name, log in logs.items() for pair in files.read_lines(log) if pair.keys() >= PAIR)
        done = {(name, str(pair["content"]), str(pair["style"])): pair for name, pair in pairs}
        earlier = set(done)
        lines = {name: stack.enter_context(files.LineLog(log)) for name, log in logs.items()}
        for cell in cells(
            ctx, Metrics(ctx), methods, faces, styles, lambda n, c, s: (n, c.key, s.key) in earlier,
            budget=budget, strength=strength, opened=opened, failed=lambda n, fault: failures.update({n: str(fault)}),
        ):  # fmt: skip
            if cell.content < SHOWN and cell.style < SHOWN:
                draw(comparison_page.cell(cell.method, cell.content, cell.style), cell.image)
            face, style = faces[cell.content].key, styles[cell.style].key
            row = {"method": cell.method, "content": face, "style": style, "seconds": cell.seconds} | cell.figures
            done[cell.method, face, style] = row
            lines[cell.method].add(row)
    able = [(name, method) for name, method in methods.items() if name not in failures]
    return [
        done[name, faces[i].key, styles[j].key]
        for name, method in able
        for i, j in pairs_of(method, len(faces), len(styles), budget)
    ], failures


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


def _digest(portrait: Portrait, whole: bool) -> str:
    parts = (portrait.image, portrait.region, portrait.latent, portrait.codes) if whole else (portrait.image,)
    return portrait.key + hashing.short_hash("".join(np.ascontiguousarray(p).tobytes().hex() for p in parts))


def _timed(ctx: Context, method: Apply, content: Portrait, style: Portrait) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    image = method(content, style)
    if ctx.device.startswith("cuda"):
        torch.cuda.synchronize()
    return image, time.perf_counter() - start


def _mean(pairs: list[dict[str, Any]]) -> dict[str, float]:
    means = {name: round(mean(p[name] for p in pairs), 6) for name in METRICS}
    return means | {"seconds_per_image": round(median(p["seconds"] for p in pairs), 4), "pairs": len(pairs)}
