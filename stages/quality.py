"""Measure the weights on a folder of portraits they were never trained on: one JSON line a figure.

The folder holds content/, style/, seg/ (photo .jpg and mask .png: 0 hair, 1 face, 2 background) and nonportrait/.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from models import sifid
from models.adain import AdaIN
from models.inception import InceptionStem
from models.lpips import LPIPS
from models.parser import PortraitParser
from pipeline import pictures, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.files import write_atomic
from pipeline.report import Progress, say
from stages import aladin_codes, gallery, train_aladin, train_parser
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
    raw, coded = train_aladin.retrieval(aladin_codes.network(ctx), works)
    figure("aladin_top1", coded, len(works))
    figure("aladin_top1_raw", raw, len(works))
    read = Reader(ctx)
    faces = _read(read, _files(portraits / "content"), "content")
    chosen = _read(read, _spaced(_files(portraits / "style"), styles), "style")
    stylist = Stylist(ctx)
    measure = Measures(ctx)
    figure("inverter_lpips_alex", mean(measure.lpips(stylist.invert(f), f.image) for f in faces), len(faces))
    own = [measure.lpips(stylist.render(f, f.codes), f.image) for f in faces]
    figure("reconstruction_lpips_alex", mean(own), len(own))
    compare(ctx, stylist, measure, _spaced(faces, contents), chosen, sheet)
    figure("seconds_per_image", seconds(lambda: stylist.stylise(faces[0], chosen[0])), TIMED)
    return 0


def compare(ctx: Context, stylist: Stylist, measure: "Measures", faces: list[Portrait], styles: list[Portrait],
            sheet: Path | None) -> None:
    """Style and content distance of every pair for the plain photo, AdaIN and this network."""
    baseline = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)
    targets = [measure.gaussian(s.image) for s in styles]
    found: dict[str, list[float]] = {}
    rows = []
    progress = Progress("pairs", len(faces) * len(styles))
    for face in faces:
        plain = measure.gaussian(face.image)
        row = [face.image, gallery.overlay(face), stylist.invert(face), stylist.render(face, face.codes)]
        for style, target in zip(styles, targets, strict=True):
            with torch.no_grad():
                painted = baseline(measure.tensor(face.image), measure.tensor(style.image))
            ours, theirs = stylist.stylise(face, style), pictures.to_arrays(painted)[0]
            row.append(ours)
            for name, value in (
                ("sifid64_unstylised", sifid.frechet(plain, target)),
                ("sifid64_hypernst", sifid.frechet(measure.gaussian(ours), target)),
                ("sifid64_adain", sifid.frechet(measure.gaussian(theirs), target)),
                ("lpips_alex_hypernst", measure.lpips(ours, face.image)),
                ("lpips_alex_adain", measure.lpips(theirs, face.image)),
            ):
                found.setdefault(name, []).append(value)
            progress.add(1)
        rows.append(row)
    progress.close()
    for name, values in found.items():
        figure(name, mean(values), len(values))
    if sheet:
        write_atomic(sheet, pictures.encode(gallery.compose(rows, styles)))
        say(f"quality: {sheet}")


class Measures:
    """The networks that pictures u8 [256, 256, 3] are compared by."""

    def __init__(self, ctx: Context) -> None:
        self.device = ctx.device
        self.alex = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
        self.inception = InceptionStem(weights.tensors("inception-fid")).to(ctx.device)

    def tensor(self, image: np.ndarray) -> torch.Tensor:
        return pictures.to_tensor(image).to(self.device)

    @torch.no_grad()
    def lpips(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(self.alex(self.tensor(a), self.tensor(b)))

    @torch.no_grad()
    def gaussian(self, image: np.ndarray) -> sifid.Gaussian:
        """SIFID-64's summary of a picture."""
        return sifid.gaussian(self.inception(self.tensor(image))[64][0])


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
