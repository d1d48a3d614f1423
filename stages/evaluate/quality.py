"""Measure the weights on a folder of portraits they were never trained on: one JSON line a figure.

The folder holds content/, style/, seg/ (photo .jpg and mask .png: 0 hair, 1 face, 2 background) and nonportrait/.
Its portraits go through the preprocessing stages into CACHE/quality, so that another measurement with other weights
computes only what these change.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from models.encoders.aladin import Aladin
from models.metrics import sifid
from models.metrics.face_embedding import FaceEmbedding
from models.parsing.portrait import PortraitParser
from pipeline import images, ours, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.progress import say
from pipeline.reports import sheets
from pipeline.runner.run import run_stage
from stages.apply.look import whole
from stages.apply.refine import Refinement
from stages.apply.stylist import Stylist
from stages.evaluate import comparison, control, gallery, parsing, retrieval
from stages.evaluate.methods import METHODS, QUICK, REFINEMENT_STEPS, Method
from stages.evaluate.metrics import Metrics, sifid_titles
from stages.loaders import style_encoder
from stages.loaders.load import load
from stages.portraits.portrait import Portrait, cached
from stages.preprocess import chain

WARM_UP, TIMED = 2, 10
TRIPLES, WALKS, SHOWN = 50, 20, 8  # measured of each; rows of a sheet
REFINED = 100  # pairs
CONTROL_TITLES = ("content", "style A", "style B", "own codes", "all A", "all B", "hair A, face B", "hair B, face A")


def run(
    ctx: Context,
    *,
    portraits: Path,
    contents: int = 20,
    styles: int = 20,
    sheet: Path | None = None,
    control_sheet: Path | None = None,
    strip: Path | None = None,
) -> int:
    """Print every figure; `contents` x `styles` evenly spaced pairs are stylised, and drawn to `sheet` if given."""
    for name in ("content", "style", "seg", "nonportrait"):
        if not (portraits / name).is_dir():
            raise UserError(f"{portraits}: has no folder {name}/; expected content, style, seg and nonportrait", 2)
    for path in filter(None, (sheet, control_sheet, strip)):
        if path.suffix.lower() not in images.SUFFIXES:
            raise UserError(f"{path}: expected an image's name, ending in {', '.join(images.SUFFIXES)}", 2)
    used, name = ctx.profile, ctx.profile.name
    if used.parser.kind != "portrait" or not used.parser.weights:
        what = repr(used.parser.kind) if used.parser.weights else "untrained"
        raise UserError(f'profile {name}: the parser is {what}; quality measures a trained "portrait" one', 2)
    encoder = style_encoder.network(ctx)
    if not isinstance(encoder, Aladin):
        raise UserError(f"profile {name}: aladin.kind is {used.aladin.kind!r}; quality needs a VGG16", 2)
    parser = load(used.parser.weights, PortraitParser.load).to(ctx.device)
    figure("parser_miou", *parsing.measure(parser, portraits / "seg"))
    works = _files(portraits / "style") + _files(portraits / "nonportrait")
    raw, coded = retrieval.retrieval(encoder, works)
    figure("aladin_top1", coded, len(works))
    figure("aladin_top1_raw", raw, len(works))
    faces, artworks = prepare(ctx, portraits)
    stylist = Stylist(ctx)
    metrics, person = Metrics(ctx), FaceEmbedding(weights.path("face-embedding"))
    renderings(stylist, metrics, person, faces)
    chosen = _spaced(artworks, styles)
    compare(ctx, stylist, metrics, person, _spaced(faces, contents), chosen, sheet)
    refined(ctx, Refinement(ctx, stylist), metrics, person, _spaced(faces, REFINED), _spaced(artworks, REFINED))
    steer(ctx, stylist, metrics, faces, artworks, control_sheet, strip)
    figure("seconds_per_image", seconds(lambda: stylist.stylize(faces[0], chosen[0])), TIMED)
    return 0


def prepare(ctx: Context, portraits: Path) -> tuple[list[Portrait], list[Portrait]]:
    """Both collections of the folder through the preprocessing stages; what cannot be used is told, not counted."""
    inside = dataclasses.replace(
        ctx, cache=ctx.cache / "quality", content=portraits / "content", style=portraits / "style", limit=None
    )
    for name in chain.CACHED:
        for collection in COLLECTIONS:
            for step in chain.steps(name, collection, inside):
                run_stage(step, collection, inside)
    found = [list(cached(inside, collection)) for collection in COLLECTIONS]
    for collection, usable in zip(COLLECTIONS, found, strict=True):
        if not usable:
            raise UserError(f"{portraits / collection}: no usable image; expected aligned portraits")
    return found[0], found[1]


def renderings(stylist: Stylist, metrics: Metrics, person: FaceEmbedding, faces: list[Portrait]) -> None:
    """What inversion and reconstruction keep of each face: mean LPIPS-alex, median cosine of the face embedding."""
    for lpips_name, identity_name, render in (
        ("inverter_lpips_alex", "identity_inversion", stylist.invert),
        ("reconstruction_lpips_alex", "identity_reconstruction", lambda f: stylist.render(f, f.target)),
    ):
        pairs = [(render(face), face.image) for face in faces]
        figure(lpips_name, mean(metrics.lpips(*pair) for pair in pairs), len(pairs))
        figure(identity_name, median(person.similarity(*pair) for pair in pairs), len(pairs))


def compare(
    ctx: Context,
    stylist: Stylist,
    metrics: Metrics,
    person: FaceEmbedding,
    faces: list[Portrait],
    styles: list[Portrait],
    sheet: Path | None,
) -> None:
    """Of every pair and method: SIFID to the style, LPIPS to the content, and the cosine of the face embedding.

    Prints the means; of the cosines the medians.
    """
    compared: dict[str, Method] = {name: METHODS[name] for name in QUICK}
    compared["hypernst"] = dataclasses.replace(METHODS["hypernst"], open=lambda _: stylist.stylize)
    scores: dict[str, list[float]] = {}
    rows = [[f.image, gallery.regions_of(f), stylist.invert(f), stylist.render(f, f.target)] for f in faces]
    own = [person(f.image) for f in faces]
    for cell in comparison.cells(ctx, metrics, compared, faces, styles):
        if cell.method == "hypernst":
            rows[cell.content].append(cell.image)
        values = cell.figures | {"identity": float(person(cell.image) @ own[cell.content])}
        for name, value in values.items():
            if cell.method != "unstylised" or name.startswith("sifid"):
                scores.setdefault(f"{name.replace('sifid_', 'sifid')}_{cell.method}", []).append(value)
    for name, numbers in sorted(scores.items()):
        figure(name, (median if name.startswith("identity") else mean)(numbers), len(numbers), sifid_title(ctx, name))
    if sheet:
        _draw(sheet, gallery.compose(rows, styles))


def refined(
    ctx: Context,
    refine: Refinement,
    metrics: Metrics,
    person: FaceEmbedding,
    faces: list[Portrait],
    styles: list[Portrait],
) -> None:
    """What refinement makes of each face with the style of its place in the list, and AdaIN of the same pairs.

    Identity and seconds are medians.
    """
    adain = METHODS["adain"].open(ctx)
    scores: dict[str, list[float]] = {}
    for face, style in zip(faces, styles, strict=False):
        start = time.perf_counter()
        image = images.to_arrays(refine(face, whole(style), REFINEMENT_STEPS).image)[0]
        scores.setdefault("seconds_refined", []).append(time.perf_counter() - start)
        content, texture = metrics.features(face.image), metrics.summary(style.image)
        for method, made in {"refined": image, "refined_adain": adain(face, style)}.items():
            values = metrics.compare(made, content, texture) | {"identity": person.similarity(made, face.image)}
            for name, value in values.items():
                scores.setdefault(f"{name.replace('sifid_', 'sifid')}_{method}", []).append(value)
    for name, numbers in scores.items():
        middle = median if name.startswith(("identity", "seconds")) else mean
        figure(name, middle(numbers), len(numbers), sifid_title(ctx, name))


def steer(
    ctx: Context,
    stylist: Stylist,
    metrics: Metrics,
    faces: list[Portrait],
    styles: list[Portrait],
    control_sheet: Path | None,
    strip: Path | None,
) -> None:
    """Region control over TRIPLES and interpolation over WALKS, spaced evenly; what `stages.control` measures."""
    found, rows = control.regions(stylist.render, control.triples(faces, styles, TRIPLES))
    for name, (value, n) in found.items():
        figure(name, value, n)
    if control_sheet and rows:
        _draw(control_sheet, sheets.grid(_spaced(rows, SHOWN), CONTROL_TITLES))

    pairs = list(zip(_spaced(faces, WALKS), _spaced(styles, WALKS), strict=False))
    targets = {style.key: metrics.summary(style.image)[64] for _, style in pairs}

    def score(image: np.ndarray, content: Portrait, style: Portrait) -> dict[str, float]:
        return {
            "sifid64": sifid.frechet(metrics.summary(image)[64], targets[style.key]),
            "lpips_alex": metrics.lpips(image, content.image),
        }

    walked, strips = control.walk(stylist.render, stylist.target, pairs, score)
    for name, (value, n) in walked.items():
        figure(f"interpolation_{name}", value, n, sifid_title(ctx, name))
    if strip:
        titles = ("content", *(f"{strength:.1f}" for strength in control.STRENGTHS), "style")
        _draw(strip, sheets.grid(_spaced(strips, SHOWN), titles))


def figure(name: str, value: float, n: int, title: str = "") -> None:
    """Print one figure; `title` is its full name."""
    row = {"figure": name, "value": round(float(value), 4), "n": n}
    print(json.dumps(row | ({"title": title} if title else {})), flush=True)


def sifid_title(ctx: Context, name: str) -> str:
    """The full name of a SIFID's figure, "" of any other."""
    return sifid_titles(ctx).get(name.split("_")[0].replace("sifid", "sifid_"), "")


def seconds(work: Callable[[], object]) -> float:
    """Median seconds of `work` after a warm-up: the core forward, with everything cached."""
    times = []
    for i in range(WARM_UP + TIMED):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= WARM_UP:
            times.append(time.perf_counter() - start)
    return median(times)


def _draw(path: Path, picture: np.ndarray) -> None:
    write_atomic(path, images.encode(picture, path.suffix.lower()))
    say(f"quality: {path}")


def _files(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in images.SUFFIXES
        and not ours.is_system(p.name)
        and not (p.suffix == ".png" and p.with_suffix(".jpg").exists())
    )


def _spaced(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spaced."""
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]
