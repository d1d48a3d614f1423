"""The page of a training: curves of its losses and measures, and its grids. Also the curves of several runs in one."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline import files
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.reports import pages
from pipeline.reports.charts import Curve, chart, short
from pipeline.training import loop
from stages.evaluate import overview

GRIDS = "grids"
NO_CURVES = {"step", "time", "phase"}
LARGEST = 1e300  # larger values and those that are no numbers have no place in a chart
SPEED = ("seconds", "wait")  # of a step: all of it, and until its data was there
GRID = re.compile(r"step-(\d+)\.png")

Rows = list[dict[str, Any]]
Series = dict[str, list[tuple[float, float]]]


def write(ctx: Context) -> Path:
    """Write training.html into the run's folder: curves of the log and the validation, grids, latest first."""
    return write_of(ctx, ctx.run, "Training")


def write_of(ctx: Context, folder: Path, title: str) -> Path:
    """`write` for a training of the run that lies in a folder of its own."""
    path = folder / overview.TRAINING
    home = pages.relative(ctx.run / overview.INDEX, path)
    values = {"home": home, "run": ctx.run.name, "title": title, "grids": _grids(folder)}
    files.write_atomic(path, pages.render("training", **values, **_curves([folder], ctx.profile.name)))
    overview.write(ctx)
    return path


def compare(runs: Sequence[Path], output: Path) -> Path:
    """Write a page with the curves of several runs, each quantity in one chart.

    Raises: UserError(2) when a folder holds no log of a training.
    """
    for run in runs:
        if not loop.rows(run):
            raise UserError(f"{run}: holds no log.jsonl with steps; expected the folder of a training", 2)
    files.write_atomic(output, pages.render("training", title="Trainings", grids=[], **_curves(runs)))
    return output


def validation(run: Path) -> Rows:
    """The measures of a run's grids in order of their steps. Where a step was measured twice, the later ones count."""
    return [row for _, row in sorted({row["step"]: row for row in loop.steps(run / "validation.jsonl")}.items())]


def _curves(runs: Sequence[Path], profile: str = "") -> dict[str, Any]:
    """What the page shows of the runs: a summary, their names, groups of charts."""
    logs, measures_of = [loop.rows(run) for run in runs], [validation(run) for run in runs]
    losses, measured = [_series(rows) for rows in logs], [_series(rows) for rows in measures_of]
    titles = {name: text for rows in measures_of for row in rows for name, text in row.items()}  # of SIFID: its layer
    names, measures = (list(dict.fromkeys(name for of_run in every for name in of_run)) for every in (losses, measured))
    phases = [_phases(rows) for rows in logs]
    steps = [row["step"] for rows in logs for row in rows] or [0]

    def charts(series: Sequence[Series], names: Sequence[str]) -> list[dict[str, Any]]:
        shown = []
        for name in names:
            curves = [
                Curve(run.name, of_run.get(name, []), of_phases)
                for run, of_run, of_phases in zip(runs, series, phases, strict=True)
            ]
            last = ", ".join(short(curve.points[-1][1]) for curve in curves if curve.points)
            title = titles.get(f"{name}_title", name)
            linear, log = (chart(title, curves, steps=(min(steps), max(steps)), log=log) for log in (False, True))
            shown.append({"title": title, "last": f"last {last}", "linear": linear, "log": log})
        return shown

    groups = {
        "Measures of held-out portraits": charts(measured, measures),
        "Losses": charts(losses, [name for name in names if name not in SPEED]),
        "Seconds per step": charts(losses, [name for name in SPEED if name in names]),
    }
    if profile:
        summary = f"{_summary(logs[0]) if logs[0] else 'Nothing is logged yet'}, profile {profile}."
    else:
        summary = f"{len(runs)} runs."
    return {
        "summary": summary,
        "runs": list(map(str, runs)),
        "groups": {title: of_group for title, of_group in groups.items() if of_group},
    }


def _summary(rows: Rows) -> str:
    last = rows[-1]
    phase = f" in phase {last['phase']}" if "phase" in last else ""
    return f"Step {last['step']}{phase}"


def _phases(rows: Rows) -> list[tuple[float, str]]:
    """The first step of each phase, and its name."""
    grouped = itertools.groupby(rows, lambda row: str(row.get("phase", "")))
    return [(next(of_phase)["step"], name) for name, of_phase in grouped if name]


def _series(rows: Rows) -> Series:
    """The points of every quantity."""
    series: Series = {}
    for row in rows:
        for name, value in row.items():
            if name not in NO_CURVES and isinstance(value, float | int) and abs(value) < LARGEST:
                series.setdefault(name, []).append((row["step"], float(value)))
    return series


def _grids(run: Path) -> list[dict[str, Any]]:
    """The grids, latest first."""
    found = [(int(match[1]), path) for path in (run / GRIDS).glob("*.png") if (match := GRID.fullmatch(path.name))]
    shown = []
    for step, path in sorted(found, reverse=True):
        with Image.open(path) as image:  # reads the header alone
            width, height = image.size
        shown.append({"step": step, "file": f"{GRIDS}/{path.name}", "width": width, "height": height})
    return shown
