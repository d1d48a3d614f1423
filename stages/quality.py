"""Measure the weights on a folder of portraits they were never trained on: one JSON line a figure.

The folder holds content/, style/, seg/ (photo .jpg and mask .png: 0 hair, 1 face, 2 background) and nonportrait/.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from models import sifid
from models.aladin import Aladin
from models.parser import PortraitParser
from pipeline import pictures, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.report import Progress, say
from stages import aladin_codes, evaluate, gallery, train_aladin, train_parser
from stages.portraits import Portrait, Reader, Stylist

WARM_UP, TIMED = 2, 10


def run(ctx: Context, *, portraits: Path, contents: int = 20, styles: int = 20, sheet: Path | None = None) -> int:
    """Print every figure; `contents` x `styles` evenly spaced pairs are stylised, and drawn to `sheet` if given."""
    for name in ("content", "style", "seg", "nonportrait"):
        if not (portraits / name).is_dir():
            raise Fault(f"{portraits}: has no folder {name}/; expected content, style, seg and nonportrait", 2)
    parser = PortraitParser.load(weights.tensors(ctx.profile.parser.weights)).to(ctx.device)
    figure("parser_miou", *train_parser.measure(parser, portraits / "seg"))
    works = _files(portraits / "style") + _files(portraits / "nonportrait")
    encoder = aladin_codes.network(ctx)
    if not isinstance(encoder, Aladin):
        raise Fault(f"profile {ctx.profile.name}: aladin.kind is {ctx.profile.aladin.kind!r}; quality needs a VGG16", 2)
    raw, coded = train_aladin.retrieval(encoder, works)
    figure("aladin_top1", coded, len(works))
    figure("aladin_top1_raw", raw, len(works))
    read = Reader(ctx)
    faces = _read(read, _files(portraits / "content"), "content")
    chosen = _read(read, _spaced(_files(portraits / "style"), styles), "style")
    stylist = Stylist(ctx)
    metrics = evaluate.Metrics(ctx)
    figure("inverter_lpips_alex", mean(metrics.lpips(stylist.invert(f), f.image) for f in faces), len(faces))
    own = [metrics.lpips(stylist.render(f, f.codes), f.image) for f in faces]
    figure("reconstruction_lpips_alex", mean(own), len(own))
    compare(ctx, metrics, _spaced(faces, contents), chosen, sheet)
    figure("seconds_per_image", seconds(lambda: stylist.stylise(faces[0], chosen[0])), TIMED)
    return 0


def compare(ctx: Context, metrics: evaluate.Metrics, faces: list[Portrait], styles: list[Portrait],
            sheet: Path | None) -> None:
    """SIFID-64 to the style and LPIPS-alex to the content of every pair, for each method of the evaluation."""
    methods = {name: make(ctx) for name, make in evaluate.METHODS.items()}
    targets = [metrics.summary(s.image)[64] for s in styles]
    found: dict[str, list[float]] = {}
    rows = []
    progress = Progress("pairs", len(faces) * len(styles))
    for face in faces:
        row = [face.image, gallery.overlay(face)]
        for style, target in zip(styles, targets, strict=True):
            for name, method in methods.items():
                image = method(face, style)
                found.setdefault(f"sifid64_{name}", []).append(sifid.frechet(metrics.summary(image)[64], target))
                found.setdefault(f"lpips_alex_{name}", []).append(metrics.lpips(image, face.image))
            row.append(image)
            progress.add(1)
        rows.append(row)
    progress.close()
    for name, values in found.items():
        if name != "lpips_alex_unstylised":  # 0 by definition
            figure(name, mean(values), len(values))
    if sheet:
        stylist = Stylist(ctx)
        for face, row in zip(faces, rows, strict=True):
            row[2:2] = [stylist.invert(face), stylist.render(face, face.codes)]
        write_atomic(sheet, pictures.encode(gallery.compose(rows, styles)))
        say(f"quality: {sheet}")


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


def _read(read: Reader, paths: Iterable[Path], collection: str) -> list[Portrait]:
    """The usable pictures; the others are told, not counted."""
    found = []
    for path in paths:
        try:
            found.append(read(path, collection))
        except Fault as fault:
            say(f"quality: left out: {fault}")
    if not found:
        raise Fault(f"no usable {collection} picture; expected aligned portraits")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES and not
                  (p.suffix == ".png" and p.with_suffix(".jpg").exists()))


def _spaced(items: list[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spaced."""
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]
