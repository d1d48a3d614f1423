"""The paper's ablations (section 4.3): Tables 2 to 4.

A base is trained to reconstruct, one for each value of the switches that reconstruction depends on; in a profile
without reconstruction steps it is the profile's weights. From it, stylisation is trained for each row of a table. Every
row is a training run and an evaluation of its own below runs/<run>/ablation. So a killed sweep resumes where it was,
and a row can be inspected like any other run.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.generators.interface import LayerEntry
from models.generators.stylegan2 import layer_table
from pipeline import files, weights
from pipeline.context import Context
from pipeline.profile import Train
from pipeline.progress import say
from stages.evaluate import comparison, methods
from stages.evaluate.metrics import sifid_titles
from stages.loaders import generator as generators
from stages.train import run as train
from stages.train import state

STRENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0)
PAPER_STRENGTH = 2.0  # that of the paper's other tables: the weights that a profile has
PAPER_LAYERS = (3, 7, 13, 17, 22)  # rows of a 1024 px StyleGAN2's table
SWITCHES = {
    "Baseline (with both cond and loss)": (True, True),
    "No mask cond and no mask loss": (False, False),
    "No mask cond": (False, True),
    "No mask loss": (True, False),
}
BASES = {"mask_condition": "no-mask-cond"}  # switches that reconstruction depends on: how a base without is called


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called, its folder, the settings it changes.

    `paper` is the first column of the paper's line, `value` the place on the axis of a curve, if there is one.
    """

    title: str
    name: str
    changes: Mapping[str, Any]
    paper: str
    value: float | None = None


def run(ctx: Context, *, table: int, steps: int | None = None) -> int:
    """Train and measure the rows of Table `table` (2, 3 or 4), with `steps` of stylisation each.

    A base has the profile's reconstruction steps. Prints the table, and writes table<N>.md and table<N>.json.
    """
    settings = ctx.profile.train
    steps = settings.stylization_steps if steps is None else steps
    folder = ctx.run / "ablation"
    figures: dict[str, dict[str, Any]] = {}
    for row in plan(table, settings, generators.generator(ctx).layer_table()):
        changed = dataclasses.replace(settings, **row.changes)
        base = _base(ctx, changed)
        changed = dataclasses.replace(changed, weights=base, reconstruction_steps=0, stylization_steps=steps)
        row_ctx = dataclasses.replace(
            ctx, run=folder / f"table{table}-{row.name}", profile=dataclasses.replace(ctx.profile, train=changed)
        )
        say(f"ablation: table {table}, {row.title}")
        if state.step_of(row_ctx) < steps:
            train.run(row_ctx, steps=steps)
        comparison.run(row_ctx, methods=methods.chosen(["hypernst"]))
        results = json.loads((comparison.folder(row_ctx) / "results.json").read_text())
        figures[row.title] = {"base": Path(base).stem, "run": row_ctx.run.name, "paper": row.paper, "value": row.value}
        figures[row.title] |= results["methods"]["hypernst"]
    told = {"table": table, "steps": steps, "profile": ctx.profile.name, "rows": figures}
    told |= {name: results[name] for name in ("metrics", "weights", "pictures", "split")}
    files.write_atomic(folder / f"table{table}.json", json.dumps(told, indent=1).encode())
    text = render(table, figures, sifid_titles(ctx))
    files.write_atomic(folder / f"table{table}.md", text.encode())
    say(text)
    return 0


def _base(ctx: Context, settings: Train) -> str:
    """The weights that a row with these settings starts from, trained to reconstruct if they are not there yet."""
    if settings.weights and not settings.reconstruction_steps:
        return settings.weights
    without = [name for switch, name in BASES.items() if not getattr(settings, switch)]
    place = ctx.run / "ablation" / "-".join(["base", *without])
    file = place.with_name(f"{place.name}.safetensors")
    if not file.exists():
        switches = {switch: getattr(settings, switch) for switch in BASES}
        changed = dataclasses.replace(ctx.profile.train, **switches)
        train.run(
            dataclasses.replace(ctx, run=place, profile=dataclasses.replace(ctx.profile, train=changed)),
            steps=settings.reconstruction_steps,
            shipped=settings.heads == "hyperstyle" and bool(settings.weights),
            export=file,
        )
    return weights.as_name(file)


def plan(table: int, settings: Train, layers: Sequence[LayerEntry]) -> list[Row]:
    """The rows of a table for the profile.

    Table 2 scales all losses that pull towards the style; 2.0 is the profile's own weight. Table 3's layers are those
    of a 1024 px StyleGAN2: a smaller one has the same layers as far as it goes, another generator starts at the first
    layer of the same resolution.
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
                f"{strength:.1f}",
                strength,
            )
            for strength in STRENGTHS
        ]
    if table == 3:
        starts: dict[int, int] = {}
        for row in PAPER_LAYERS:
            if (i := _counterpart(row, layers)) is not None:
                starts.setdefault(i, row)
        return [
            Row(f"{layers[i].resolution}px ({i}, {layers[i].name})", f"layer-{i}", {"start_layer": i}, str(row), i)
            for i, row in starts.items()
        ]
    return [
        Row(title, f"cond-{cond}-loss-{loss}".lower(), {"mask_condition": cond, "mask_loss": loss}, title)
        for title, (cond, loss) in SWITCHES.items()
    ]


def _counterpart(row: int, layers: Sequence[LayerEntry]) -> int | None:
    """The layer that corresponds to a row of the paper's generator: of its name, else the first of its resolution."""
    paper = layer_table(1024)[row]
    named = [entry.index for entry in layers if (entry.name, entry.resolution) == (paper.name, paper.resolution)]
    alike = [entry.index for entry in layers if entry.resolution == paper.resolution]
    return next(iter(named or alike), None)


def render(table: int, figures: Mapping[str, Mapping[str, Any]], sifid: Mapping[str, str]) -> str:
    """The table in the paper's form, and each row's base; lower is better in every number.

    `sifid` has the titles of the SIFID columns.
    """
    first = {2: "Style loss strength", 3: "Layer", 4: "Experiment"}[table]
    columns = {"lpips_alex": "LPIPS (Alexnet)", "lpips_vgg": "LPIPS (VGG)", **sifid}
    lines = [f"| {first} | {' | '.join(columns.values())} | Base |", "|---" * (len(columns) + 2) + "|"]
    for title, row in figures.items():
        lines.append(f"| {title} | {' | '.join(f'{row[name]:.6f}' for name in columns)} | {row['base']} |")
    return "\n".join(lines) + "\n"
