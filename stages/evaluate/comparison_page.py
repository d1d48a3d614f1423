"""The comparison as a table and as a page."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files, images
from pipeline.context import Context
from pipeline.reports import pages
from pipeline.reports.pages import Table
from stages.evaluate.methods import STRENGTHS
from stages.loaders import hypernetwork
from stages.portraits.portrait import Portrait

SHOWN = 8  # contents and styles in the page's grid
METRICS = {"lpips_alex": 4, "lpips_vgg": 4, "sifid_192": 2, "sifid_64": 2}  # digits after the point
LPIPS = {"lpips_alex": "LPIPS (Alexnet)", "lpips_vgg": "LPIPS (VGG)"}

Report = Mapping[str, Any]  # what results.json holds


def folder(ctx: Context) -> Path:
    """Where the evaluation of this run lies: runs/eval/<name of the run>."""
    return ctx.run.parent / "eval" / ctx.run.name


def figures(report: Report) -> Table:
    """The paper's Table 1, means over pairs with their intervals; lower is better in every number.

    A method that was not measured has the reason instead. The best of each column is marked; doing nothing and methods
    with fewer pairs than others are left out of that.
    """
    results, missing = report["methods"], report["not_measured"]
    rows: list[tuple[str, ...]] = []
    rivals, spans = {}, {}
    most = max((values["pairs"] for values in results.values()), default=0)
    for name, method in report["compared"].items():
        abilities = ("yes" if method[ability] else "no" for ability in ("interpolates", "edits"))
        if name in missing:
            spans[len(rows)] = len(METRICS) + 2
            rows.append((method["title"], f"not measured: {missing[name]}", *["–"] * (len(METRICS) + 1), *abilities))
            continue
        values = results[name]
        if name != "unstylised" and values["pairs"] == most:
            rivals[len(rows)] = values
        numbers = [_number(values[m], report["intervals"][name][m], digits) for m, digits in METRICS.items()]
        rows.append((method["title"], *numbers, f"{values['seconds_per_image']:.3f}", str(values["pairs"]), *abilities))
    best = {
        (min(rivals, key=lambda row: rivals[row][key]), column)
        for column, key in enumerate((*METRICS, "seconds_per_image"), 1)
        if len(rivals) > 1
    }
    columns = ("Model", *_titles(report), "Time (s/img)", "Pairs", "Interpolation", "Editing")
    return Table(columns, rows, frozenset(best), spans)


def _title(report: Report, name: str) -> str:
    return str(report["compared"][name]["title"])


def differences(report: Report) -> Table:
    """The paired differences with their intervals, the first method minus the second; no rows for a single method."""
    rows = []
    for name, other in itertools.combinations(reversed(list(report["methods"])), 2):
        gaps = report["differences"][name].get(other)
        if gaps:
            numbers = [_number(gaps[m]["mean"], gaps[m]["interval"], digits) for m, digits in METRICS.items()]
            rows.append((f"{_title(report, name)} minus {_title(report, other)}", *numbers))
    return Table(("Methods", *_titles(report)), rows)


def markdown(report: Report) -> str:
    """Both tables as Markdown."""
    text = f"{as_markdown(figures(report))}\nMeans over pairs, with {_percent(report)} bootstrap intervals.\n"
    text += "".join(f"{line}\n" for line in notes(report))
    gaps = differences(report)
    if gaps.rows:
        text += f"\nPaired differences, first minus second: below 0 the first is better.\n\n{as_markdown(gaps)}"
    return text


def notes(report: Report) -> list[str]:
    """What has to be known of single methods: how they were run, which defects are repaired."""
    return [f"{_title(report, name)}: {n}." for name in report["methods"] if (n := report["compared"][name]["note"])]


def as_markdown(table: Table) -> str:
    """A table as Markdown."""
    head, *lines = (f"| {' | '.join(row)} |\n" for row in (table.columns, *table.rows))
    return "".join([head, "|---" * len(table.columns) + "|\n", *lines])


def _titles(report: Report) -> list[str]:
    """The titles of the METRICS: which network and layer a SIFID has, the report says."""
    return [LPIPS.get(name) or report["metrics"][name] for name in METRICS]


def _percent(report: Report) -> str:
    return f"{100 * report['confidence']:.0f} %"


def _number(value: float, interval: Sequence[float], digits: int) -> str:
    low, high = interval
    spread = f" ({low:.{digits}f} to {high:.{digits}f})" if low < high else ""  # one pair has none
    return f"{value:.{digits}f}{spread}"


def write(ctx: Context, report: Report, faces: list[Portrait], styles: list[Portrait], page: Path, home: Path) -> None:
    """Write the page: the table, then for each shown content one row per method and one column per style.

    The methods' images lie in cells/ already. `home` is the run's overview.
    """
    for kind, portraits in (("content", faces), ("style", styles)):
        for i, portrait in enumerate(portraits[:SHOWN]):
            files.write_atomic(page.parent / cell(kind, i), images.encode(portrait.image, ".jpg"))
    results = report["methods"]
    contents = [
        {
            "key": face.key,
            "file": cell("content", i),
            "methods": [
                {
                    "title": _title(report, name),
                    "cells": [
                        {"file": cell(name, i, j), "alt": f"{face.key} in {style.key}, {_title(report, name)}"}
                        for j, style in enumerate(styles[:SHOWN])
                    ],
                }
                for name in results
                if name != "unstylised"
            ],
        }
        for i, face in enumerate(faces[:SHOWN])
    ]
    files.write_atomic(
        page,
        pages.render(
            "evaluation",
            home=pages.relative(home, page),
            run=ctx.run.name,
            summary=f"{len(faces)} portraits in {len(styles)} styles, profile {ctx.profile.name}: means over pairs "
            f"with {_percent(report)} bootstrap intervals, lower is better. LPIPS is the distance to the portrait, "
            "SIFID to the style.",
            weights=hypernetwork.origin(ctx),
            figures=figures(report),
            differences=differences(report),
            notes=notes(report),
            strips=[
                {
                    "title": method["title"],
                    "cells": [{"file": file, "strength": f"{strength:g}"} for file, strength in strengths(name)],
                }
                for name, method in report["compared"].items()
                if name in results and method["interpolates"]
            ],
            styles=[{"key": style.key, "file": cell("style", j)} for j, style in enumerate(styles[:SHOWN])],
            contents=contents,
            facts=facts(report),
        ),
    )


def cell(*name: str | int) -> str:
    """The file of an image of the page: a portrait, or a method's result by content and style."""
    return f"cells/{'-'.join(map(str, name))}.jpg"


def strengths(name: str) -> list[tuple[str, float]]:
    """The files that show a method at each of STRENGTHS."""
    return [(cell(name, "strength", k), strength) for k, strength in enumerate(STRENGTHS)]


def facts(report: Report) -> dict[str, str]:
    """How the figures came about, in the order of the report."""
    metrics = {name: str(value) for name, value in report["metrics"].items() if name not in {"weights", *METRICS}}
    digests = report["metrics"]["weights"] | report["weights"]
    return metrics | {
        "weights": ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items()),
        "images": f"digest {report['pictures']['digest']}",
        "split": ", ".join(f"{name} {value}" for name, value in report["split"].items()),
    }
