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

from models import sifid
from models.adain import AdaIN, moments
from models.aladin import Aladin
from models.face_embedding import FaceEmbedding
from models.parser import PortraitParser
from pipeline import pictures, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.report import Progress, say
from pipeline.runner import run_stage
from stages import aladin_codes, chain, control, evaluate, gallery, train_aladin, train_parser
from stages.portraits import Portrait, Stylist, cached
from stages.refine import Refinement

WARM_UP, TIMED = 2, 10
TRIPLES, WALKS, SHOWN = 50, 20, 8  # measured of each; rows of a sheet
REFINED, REFINEMENT_STEPS = 20, 10  # pairs
CONTROL_TITLES = ("content", "style A", "style B", "own codes", "all A", "all B", "hair A, face B", "hair B, face A")


def run(ctx: Context, *, portraits: Path, contents: int = 20, styles: int = 20, sheet: Path | None = None,
        control_sheet: Path | None = None, strip: Path | None = None) -> int:
    """Print every figure; `contents` x `styles` evenly spaced pairs are stylised, and drawn to `sheet` if given."""
    for name in ("content", "style", "seg", "nonportrait"):
        if not (portraits / name).is_dir():
            raise Fault(f"{portraits}: has no folder {name}/; expected content, style, seg and nonportrait", 2)
    for path in filter(None, (sheet, control_sheet, strip)):
        if path.suffix.lower() not in pictures.SUFFIXES:
            raise Fault(f"{path}: expected a picture's name, ending in {', '.join(pictures.SUFFIXES)}", 2)
    parser = PortraitParser.load(weights.tensors(ctx.profile.parser.weights)).to(ctx.device)
    figure("parser_miou", *train_parser.measure(parser, portraits / "seg"))
    works = _files(portraits / "style") + _files(portraits / "nonportrait")
    encoder = aladin_codes.network(ctx)
    if not isinstance(encoder, Aladin):
        raise Fault(f"profile {ctx.profile.name}: aladin.kind is {ctx.profile.aladin.kind!r}; quality needs a VGG16", 2)
    raw, coded = train_aladin.retrieval(encoder, works)
    figure("aladin_top1", coded, len(works))
    figure("aladin_top1_raw", raw, len(works))
    faces, artworks = prepare(ctx, portraits)
    stylist = Stylist(ctx)
    metrics, person = evaluate.Metrics(ctx), FaceEmbedding(weights.path("face-embedding"))
    repaint(stylist, metrics, person, faces)
    chosen = _spaced(artworks, styles)
    compare(ctx, stylist, metrics, person, _spaced(faces, contents), chosen, sheet)
    refined(Refinement(ctx, stylist), metrics, person, _spaced(faces, REFINED), _spaced(artworks, REFINED))
    steer(stylist, metrics, faces, artworks, control_sheet, strip)
    figure("seconds_per_image", seconds(lambda: stylist.stylise(faces[0], chosen[0])), TIMED)
    return 0


def prepare(ctx: Context, portraits: Path) -> tuple[list[Portrait], list[Portrait]]:
    """Both collections of the folder through the preprocessing stages; what cannot be used is told, not counted."""
    inside = dataclasses.replace(ctx, cache=ctx.cache / "quality", content=portraits / "content",
                                 style=portraits / "style", limit=None)
    for name in chain.CACHED:
        for collection in COLLECTIONS:
            for step in chain.steps(name, collection, inside):
                run_stage(step, collection, inside)
    found = [list(cached(inside, collection)) for collection in COLLECTIONS]
    for collection, usable in zip(COLLECTIONS, found, strict=True):
        if not usable:
            raise Fault(f"{portraits / collection}: no usable picture; expected aligned portraits")
    return found[0], found[1]


def repaint(stylist: Stylist, metrics: evaluate.Metrics, person: FaceEmbedding, faces: list[Portrait]) -> None:
    """What inversion and reconstruction leave of each face: mean LPIPS-alex, and median cosine of the person's code."""
    for lpips_name, identity_name, paint in (
            ("inverter_lpips_alex", "identity_inversion", stylist.invert),
            ("reconstruction_lpips_alex", "identity_reconstruction", lambda f: stylist.render(f, f.codes))):
        pairs = [(paint(face), face.image) for face in faces]
        figure(lpips_name, mean(metrics.lpips(*pair) for pair in pairs), len(pairs))
        figure(identity_name, median(person.similarity(*pair) for pair in pairs), len(pairs))


def compare(ctx: Context, stylist: Stylist, metrics: evaluate.Metrics, person: FaceEmbedding, faces: list[Portrait],
            styles: list[Portrait], sheet: Path | None) -> None:
    """Of every pair and method: SIFID to the style, LPIPS to the content, and the cosine of the person's code.

    Prints the means, of the last the median.
    """
    adain = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)
    with torch.inference_mode():
        looks = [moments(adain.encode(pictures.to_tensor(s.image).to(ctx.device))) for s in styles]
    targets = [metrics.summary(s.image) for s in styles]
    found: dict[str, list[float]] = {}
    rows = []
    progress = Progress("pairs", len(faces) * len(styles))
    for face in faces:
        row = [face.image, gallery.overlay(face), stylist.invert(face), stylist.render(face, face.codes)]
        plain, seen, own = metrics.summary(face.image)[64], metrics.features(face.image), person(face.image)
        with torch.inference_mode():
            features = adain.encode(pictures.to_tensor(face.image).to(ctx.device))
        for style, target, look in zip(styles, targets, looks, strict=True):
            found.setdefault("sifid64_unstylised", []).append(sifid.frechet(plain, target[64]))
            row.append(stylist.stylise(face, style))
            with torch.inference_mode():
                baseline = pictures.to_arrays(adain.transfer(features, look))[0]
            for name, image in (("hypernst", row[-1]), ("adain", baseline)):
                scores = {metric.replace("sifid_", "sifid"): value
                          for metric, value in metrics.compare(image, seen, target).items()}
                for metric, value in (scores | {"identity": float(person(image) @ own)}).items():
                    found.setdefault(f"{metric}_{name}", []).append(value)
            progress.add(1)
        rows.append(row)
    progress.close()
    for name, values in found.items():
        figure(name, (median if name.startswith("identity") else mean)(values), len(values))
    if sheet:
        _draw(sheet, gallery.compose(rows, styles))


def refined(refine: Refinement, metrics: evaluate.Metrics, person: FaceEmbedding, faces: list[Portrait],
            styles: list[Portrait]) -> None:
    """What refinement makes of each face with the style of its place in the list; seconds are medians."""
    found: dict[str, list[float]] = {}
    for face, style in zip(faces, styles, strict=False):
        start = time.perf_counter()
        image = pictures.to_arrays(refine(face, style, REFINEMENT_STEPS))[0]
        seconds_taken = time.perf_counter() - start
        scores = metrics.compare(image, metrics.features(face.image), metrics.summary(style.image))
        for metric, value in (scores | {"identity": person.similarity(image, face.image),
                                        "seconds": seconds_taken}).items():
            found.setdefault(f"{metric.replace('sifid_', 'sifid')}_refined", []).append(value)
    for name, values in found.items():
        figure(name, (median if name.startswith(("identity", "seconds")) else mean)(values), len(values))


def steer(stylist: Stylist, metrics: evaluate.Metrics, faces: list[Portrait], styles: list[Portrait],
          control_sheet: Path | None, strip: Path | None) -> None:
    """Region control over TRIPLES and interpolation over WALKS, spaced evenly; what `stages.control` measures."""
    found, rows = control.regions(stylist.render, control.triples(faces, styles, TRIPLES))
    for name, (value, n) in found.items():
        figure(name, value, n)
    if control_sheet and rows:
        _draw(control_sheet, control.sheet(_spaced(rows, SHOWN), CONTROL_TITLES))

    pairs = list(zip(_spaced(faces, WALKS), _spaced(styles, WALKS), strict=False))
    targets = {style.key: metrics.summary(style.image)[64] for _, style in pairs}

    def score(image: np.ndarray, content: Portrait, style: Portrait) -> dict[str, float]:
        return {"sifid64": sifid.frechet(metrics.summary(image)[64], targets[style.key]),
                "lpips_alex": metrics.lpips(image, content.image)}

    walked, strips = control.walk(stylist.render, stylist.codes, pairs, score)
    for name, (value, n) in walked.items():
        figure(f"interpolation_{name}", value, n)
    if strip:
        titles = ("content", *(f"{strength:.1f}" for strength in control.STRENGTHS), "style")
        _draw(strip, control.sheet(_spaced(strips, SHOWN), titles))


def figure(name: str, value: float, n: int) -> None:
    """Print one figure."""
    print(json.dumps({"figure": name, "value": round(float(value), 4), "n": n}), flush=True)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, pictures.encode(picture, path.suffix.lower()))
    say(f"quality: {path}")


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES and not
                  (p.suffix == ".png" and p.with_suffix(".jpg").exists()))


def _spaced(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spaced."""
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]
