"""The paper's ablations (section 4.3): Tables 2 to 4.

One base is trained to reconstruct. From it, stylisation is trained for each row of a table. Every row is a training
run and an evaluation of its own below runs/<run>/ablation. So a killed sweep resumes where it was, and a row can be
inspected like any other run.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.generators.interface import LayerEntry
from pipeline import files
from pipeline.context import Context
from pipeline.profile import Train
from pipeline.progress import say
from stages.evaluate import comparison, methods
from stages.loaders import generator as generators
from stages.train import run as train
from stages.train import state

STRENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0)
PAPER_STRENGTH = 2.0  # that of the paper's other tables: the weights that a profile has
PAPER_LAYERS, PAPER_ROWS = (3, 7, 13, 17, 22), 26  # of a 1024 px generator's table
SWITCHES = {
    "Baseline (with both cond and loss)": (True, True),
    "No mask cond and no mask loss": (False, False),
    "No mask cond": (False, True),
    "No mask loss": (True, False),
}
COLUMNS = ("lpips_alex", "lpips_vgg", "sifid_64")


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called, its folder, and the settings it changes."""

    title: str
    name: str
    changes: Mapping[str, Any]


def run(ctx: Context, *, table: int, steps: int | None = None) -> int:
    """Train and measure the rows of Table `table` (2, 3 or 4), with `steps` of stylisation each.

    The base has the profile's reconstruction steps. Prints the table and writes table<N>.md.
    """
    rows = plan(table, ctx.profile.train, generators.generator(ctx).layer_table())
    settings = ctx.profile.train
    steps = settings.stylization_steps if steps is None else steps
    folder = ctx.run / "ablation"
    base = folder / "base.safetensors"
    if not base.exists():
        published = settings.heads == "hyperstyle" and bool(settings.weights)
        train.run(
            dataclasses.replace(ctx, run=folder / "base"),
            steps=settings.reconstruction_steps,
            shipped=published,
            export=base,
        )
    figures = {}
    for row in rows:
        changed = dataclasses.replace(
            settings, weights=str(base), reconstruction_steps=0, stylization_steps=steps, **row.changes
        )
        row_ctx = dataclasses.replace(
            ctx, run=folder / f"table{table}-{row.name}", profile=dataclasses.replace(ctx.profile, train=changed)
        )
        say(f"ablation: table {table}, {row.title}")
        if state.step_of(row_ctx) < steps:
            train.run(row_ctx, steps=steps)
        comparison.run(row_ctx, methods={"hypernst": methods.hypernst})
        results = json.loads((comparison.folder(row_ctx) / "results.json").read_text())
        figures[row.title] = results["methods"]["hypernst"]
    text = render(table, figures)
    files.write_atomic(folder / f"table{table}.md", text.encode())
    say(text)
    return 0


def plan(table: int, settings: Train, layers: Sequence[LayerEntry]) -> list[Row]:
    """The rows of a table for the profile.

    Table 2 scales all losses that pull towards the style; 2.0 is the profile's own weight. Table 3's layers are those
    of a 1024 px generator; for a shorter layer table the rows at the same relative depth are used.
    """
    if table == 2:
        return [
            Row(
                f"{strength:g}",
                f"strength-{strength:g}",
                {
                    "lambda2": settings.lambda2 * strength / PAPER_STRENGTH,
                    "style": settings.style * strength / PAPER_STRENGTH,
                },
            )
            for strength in STRENGTHS
        ]
    if table == 3:
        starts = dict.fromkeys(round(layer * len(layers) / PAPER_ROWS) for layer in PAPER_LAYERS)
        return [
            Row(f"{i} ({layers[i].name}, {layers[i].resolution}px)", f"layer-{i}", {"start_layer": i}) for i in starts
        ]
    return [
        Row(title, f"cond-{cond}-loss-{loss}".lower(), {"mask_condition": cond, "mask_loss": loss})
        for title, (cond, loss) in SWITCHES.items()
    ]


def render(table: int, figures: Mapping[str, Mapping[str, float]]) -> str:
    """The table in the paper's form; lower is better in every number."""
    first = {2: "Style loss strength", 3: "Layer", 4: "Experiment"}[table]
    lines = [f"| {first} | LPIPS (Alexnet) | LPIPS (VGG) | SIFID |", "|---|---|---|---|"]
    for title, row in figures.items():
        lines.append(f"| {title} | " + " | ".join(f"{row[name]:.6f}" for name in COLUMNS) + " |")
    return "\n".join(lines) + "\n"
