"""A fixed grid of portraits, drawn and measured every so many steps of training: does it learn, how does it look?

The portraits are the first ones that shards hold out from training (of the training ones where none are held out), so
that grids of different steps and runs can be laid beside each other.
"""

import html
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from models.backbones.inception import InceptionStem
from models.generators.interface import Generator
from models.hypernetworks import hypernetwork
from models.hypernetworks.hypernetwork import HyperNetwork
from models.metrics import sifid
from models.metrics.lpips import LPIPS
from pipeline import files, images, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.reports.charts import chart
from pipeline.shards.indexed import Samples
from pipeline.training import loop
from stages.apply.portrait import Portrait, from_sample
from stages.evaluate import gallery

SIDE = 4  # contents and styles
FOLDER = "grids"


class Grid:
    """Draws runs/<run>/grids/step-NNNNNN.png of the averaged weights, as the gallery's sheet."""

    def __init__(self, ctx: Context, generator: Generator, hyper: HyperNetwork) -> None:
        self.ctx, self.generator, self.hyper = ctx, generator, hyper
        self.contents, self.styles = (_portraits(ctx, name) for name in ("content", "style"))
        self.lpips = LPIPS("alex", weights.tensors("lpips-alex")).to(ctx.device)
        self.stem = InceptionStem(weights.tensors("inception-fid")).to(ctx.device)
        with torch.no_grad():
            self.wanted = [self._summary(_tensor(p.image, ctx.device)) for p in self.styles]

    @torch.no_grad()
    def draw(self, step: int) -> np.ndarray:
        """Draw and measure the grid; returns the picture u8 [H, W, 3] and adds a line to validation.jsonl."""
        figures: dict[str, list[float]] = {"reconstruction_lpips_alex": [], "lpips_alex": [], "sifid_64": []}
        rows = []
        for portrait in self.contents:
            x = _tensor(portrait.image, self.ctx.device)
            latent = torch.from_numpy(portrait.latent)[None].to(self.ctx.device)
            inversion, own = self.generator(latent).clamp(-1, 1), self._render(portrait, portrait.codes)
            figures["reconstruction_lpips_alex"].append(float(self.lpips(own, x)))
            row = [portrait.image, gallery.overlay(portrait), *images.to_arrays(inversion), *images.to_arrays(own)]
            for style, wanted in zip(self.styles, self.wanted, strict=True):
                y = self._render(portrait, style.codes)
                figures["lpips_alex"].append(float(self.lpips(y, x)))
                figures["sifid_64"].append(sifid.frechet(self._summary(y), wanted))
                row += [*images.to_arrays(y)]
            rows.append(row)
        sheet = gallery.compose(rows, self.styles)
        place = self.ctx.run / FOLDER
        place.mkdir(exist_ok=True)
        files.write_atomic(place / f"step-{step:06d}.png", images.encode(sheet))
        with open(self.ctx.run / "validation.jsonl", "a") as log:
            log.write(json.dumps({"step": step} | {name: round(mean(v), 5) for name, v in figures.items()}) + "\n")
        write_page(self.ctx)
        return sheet

    def _render(self, content: Portrait, codes: np.ndarray) -> torch.Tensor:
        device = self.ctx.device
        given = (content.latent, codes.astype(np.float32), content.region)
        latent, own, region = (torch.from_numpy(array)[None].to(device) for array in given)
        return hypernetwork.render(
            self.hyper,
            self.generator,
            _tensor(content.image, device),
            latent,
            own,
            region,
            self.ctx.profile.train.refinements,
        )

    def _summary(self, x: torch.Tensor) -> sifid.Gaussian:
        return sifid.gaussian(self.stem(x)[64][0].cpu())


def write_page(ctx: Context) -> str:
    """Write runs/<run>/index.html: curves of the log and of the validation, and the grids, latest first; its path."""
    losses = _series(loop.rows(ctx.run), {"step", "time", "phase"})
    measured = _series(validation(ctx.run), {"step"})
    names = sorted((ctx.run / FOLDER).glob("step-*.png"), reverse=True) if (ctx.run / FOLDER).exists() else []
    grids = "".join(f'<h3>{p.stem}</h3><img src="{FOLDER}/{p.name}">' for p in names)
    curves = [
        f"<figure>{chart(points)}<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, points in (measured | losses).items()
    ]
    page = f"""<!doctype html><meta charset="utf-8"><title>Training: {html.escape(ctx.run.name)}</title>
<style>body{{font:14px system-ui;margin:2em}}figure{{display:inline-block;margin:8px}}img{{max-width:100%}}</style>
<h1>Training of {html.escape(ctx.run.name)}, profile {html.escape(ctx.profile.name)}</h1>{"".join(curves)}{grids}
"""
    path = ctx.run / "index.html"
    files.write_atomic(path, page.encode())
    return str(path)


def validation(run: Path) -> list[dict[str, Any]]:
    """The measures of a run's grids in order of their steps; of a step drawn twice, the later ones."""
    path = run / "validation.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for _, row in sorted({row["step"]: row for row in map(json.loads, lines)}.items())]


def _series(rows: list[dict[str, Any]], without: set[str]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in without and isinstance(value, float | int):
                found.setdefault(name, []).append((row["step"], float(value)))
    return found


def _portraits(ctx: Context, collection: str) -> list[Portrait]:
    try:
        samples = Samples(ctx.shards, collection, "test")
    except Fault:  # so small a set that none is held out
        samples = Samples(ctx.shards, collection, "train")
    return [from_sample(samples[i]) for i in range(min(SIDE, len(samples)))]


def _tensor(image: np.ndarray, device: str) -> torch.Tensor:
    return images.to_tensor(image).to(device)
