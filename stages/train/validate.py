"""A fixed grid of portraits, rendered and measured at intervals during training.

The portraits are the first ones that the shards hold out from training (or training ones where none are held out), so
that grids of different steps and runs can be compared.
"""

from statistics import mean

import numpy as np

from models.generators.interface import Generator
from models.hypernetworks.hypernetwork import HyperNetwork
from models.metrics import sifid
from pipeline import files, images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.shards.indexed import Samples
from stages.apply.stylist import Stylist
from stages.evaluate import gallery
from stages.evaluate.metrics import Metrics, sifid_titles
from stages.portraits.portrait import Portrait, from_sample
from stages.train import page

SIDE = 4  # contents and styles


class Grid:
    """Renders runs/<run>/grids/step-NNNNNN.png with the EMA weights, in the layout of the gallery's sheet."""

    def __init__(self, ctx: Context, generator: Generator, hyper: HyperNetwork) -> None:
        self.ctx, self.stylist, self.metrics = ctx, Stylist(ctx, generator, hyper), Metrics(ctx)
        self.titles = {f"{name}_title": title for name, title in sifid_titles(ctx).items()}
        self.contents, self.styles = (_portraits(ctx, name) for name in ("content", "style"))
        self.targets = [self.metrics.summary(p.image) for p in self.styles]

    def draw(self, step: int) -> np.ndarray:
        """Render and measure the grid, and add a line to validation.jsonl. Returns the image u8 [H, W, 3]."""
        figures: dict[str, list[float]] = {
            name: [] for name in ("reconstruction_lpips_alex", "lpips_alex", "sifid_192", "sifid_64")
        }
        rows = []
        for content in self.contents:
            reconstruction = self.stylist.render(content, content.target)
            figures["reconstruction_lpips_alex"].append(self.metrics.lpips(reconstruction, content.image))
            row = [content.image, gallery.regions_of(content), self.stylist.invert(content), reconstruction]
            for style, target in zip(self.styles, self.targets, strict=True):
                row.append(self.stylist.render(content, style.target))
                figures["lpips_alex"].append(self.metrics.lpips(row[-1], content.image))
                found = self.metrics.summary(row[-1])
                for channels in (192, 64):
                    figures[f"sifid_{channels}"].append(sifid.frechet(found[channels], target[channels]))
            rows.append(row)
        sheet = gallery.compose(rows, self.styles)
        place = self.ctx.run / page.GRIDS
        files.write_atomic(place / f"step-{step:06d}.png", images.encode(sheet))
        with files.LineLog(self.ctx.run / "validation.jsonl") as log:
            log.add({"step": step} | {name: round(mean(v), 5) for name, v in figures.items()} | self.titles)
        page.write(self.ctx)
        return sheet


def _portraits(ctx: Context, collection: str) -> list[Portrait]:
    try:
        samples = Samples(ctx.training_shards, collection, "test")
    except UserError:  # the set is so small that none is held out
        samples = Samples(ctx.training_shards, collection, "train")
    return [from_sample(samples[i]) for i in range(min(SIDE, len(samples)))]
