"""The paper's Tables 1 to 4 from what was measured: Markdown, a page, CSV and JSON of each, with its figures.

Table 1 is the evaluation of the run, Tables 2 to 4 are its ablations. The paper's numbers stand beside ours.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import __version__, files
from pipeline.context import Context
from pipeline.progress import say
from pipeline.reports import charts, pages
from pipeline.reports.charts import Dot
from pipeline.reports.pages import Table
from stages.evaluate import comparison, comparison_page, overview
from stages.evaluate.comparison_page import METRICS
from stages.recipes import paper_numbers, table_figures
from stages.recipes.paper_numbers import NOT_COMPARABLE
from stages.recipes.table_figures import Sheet

CAPTIONS = {
    1: "Methods",
    2: "Strength of the style losses",
    3: "First layer that stylisation trains",
    4: "What the region masks are used for",
}
LPIPS, SIFID = "lpips_alex", "sifid_192"  # the axes of the plots


@dataclass(frozen=True)
class Finding:
    """A table in all its forms: as texts for people, as numbers, and what belongs to it."""

    number: int
    summary: str
    figures: Table
    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str]
    notes: Sequence[str] = ()
    plots: Sequence[Mapping[str, Any]] = ()
    sheets: Sequence[Sheet] = field(default_factory=tuple)


def run(ctx: Context) -> int:
    """Write table1 to table4 into runs/tables, as far as they were measured; what is missing is told.

    Table 1 is measured as by `eval` if the run has no evaluation. Raises: UserError as `comparison.run`.
    """
    out = ctx.run.parent / "tables"
    results = comparison.folder(ctx) / "results.json"
    if not (report := files.read_json(results)):
        comparison.run(ctx)
        report = files.read_json(results)
    write(ctx, out, methods(ctx, report, out))
    for number in paper_numbers.ABLATIONS:
        if told := files.read_json(ctx.run / "ablation" / f"table{number}.json"):
            write(ctx, out, ablation(ctx, told, out))
        else:
            say(f"tables: Table {number} is not there; run `hypernst ablation --table {number}`")
    return 0


def methods(ctx: Context, report: Mapping[str, Any], out: Path) -> Finding:
    """Table 1 of an evaluation's report. Its figures go into `out`."""
    ours = comparison_page.figures(report)
    rows = [
        {"method": name, "title": method["title"], "interpolation": method["interpolates"], "editing": method["edits"]}
        | {"not_measured": report["not_measured"].get(name, "")}
        | {metric: report["methods"].get(name, {}).get(metric) for metric in (*METRICS, "seconds_per_image", "pairs")}
        | {
            f"{metric} {end}": report["intervals"].get(name, {}).get(metric, (None, None))[i]
            for metric in METRICS
            for i, end in enumerate(("low", "high"))
        }
        | {f"paper: {column}": value for column, value in _paper(paper_numbers.TABLE_1.get(name), seconds=True)}
        for name, method in report["compared"].items()
    ]
    theirs = [paper_numbers.cell(paper_numbers.TABLE_1.get(name)) for name in report["compared"]]
    beside = [(*row, paper) for row, paper in zip(ours.rows, theirs, strict=True)]
    titles = {name: report["compared"][name]["title"] for name in report["methods"]}
    most = max(values["pairs"] for values in report["methods"].values())
    dots = [
        Dot(titles[name] + (f", {v['pairs']} of {most} pairs" if v["pairs"] < most else ""), v[LPIPS], v[SIFID])
        for name, v in report["methods"].items()
    ]
    return Finding(
        1,
        f"{len(report['pictures']['contents'])} portraits in {len(report['pictures']['styles'])} styles: means over "
        "pairs with bootstrap intervals, lower is better.",
        Table((*ours.columns, paper_numbers.heading("s/img")), beside, ours.best, ours.spans),
        rows,
        comparison_page.facts(report) | _made(ctx) | {"budget": f"{report['budget']} pairs"},
        comparison_page.notes(report),
        _plots([("SIFID against LPIPS", dots, "LPIPS (Alexnet), distance to the content", _sifid(report), False)]),
        [*table_figures.of_methods(comparison.folder(ctx), report, titles, out)],
    )


def ablation(ctx: Context, told: Mapping[str, Any], out: Path) -> Finding:
    """Table 2, 3 or 4 of an ablation's table<N>.json. Its figures go into `out`."""
    number, rows = told["table"], told["rows"]
    paper = paper_numbers.ABLATIONS[number]
    names = list(METRICS)
    first = {2: "Style loss strength", 3: "Layer", 4: "Experiment"}[number]
    columns = (first, *(comparison_page.LPIPS.get(n) or told["metrics"][n] for n in names), "Base", "Paper's row")
    columns += (paper_numbers.heading(),)
    lines = [
        (
            title,
            *(f"{row[n]:.{METRICS[n]}f}" for n in names),
            row["base"],
            row["paper"],
            paper_numbers.cell(paper.get(row["paper"])),
        )
        for title, row in rows.items()
    ]
    values = list(rows.values())
    best = {(min(range(len(values)), key=lambda i: values[i][n]), c) for c, n in enumerate(names, 1)}
    plots = []
    for metric, title in ((LPIPS, comparison_page.LPIPS[LPIPS]), (SIFID, told["metrics"][SIFID])):
        curve = [Dot(row["paper"], row["value"], row[metric]) for row in rows.values() if row["value"] is not None]
        plots.append((title, curve, first, title, True))
    if number == 4:
        dots = [Dot(title, row[LPIPS], row[SIFID]) for title, row in rows.items()]
        plots = [("SIFID against LPIPS", dots, "LPIPS (Alexnet)", told["metrics"][SIFID], False)]
    pairs = next(iter(rows.values()))["pairs"]
    return Finding(
        number,
        f"Each row has {told['steps']} steps of stylisation from the base that is named, profile {told['profile']}: "
        f"means over {pairs} pairs, lower is better.",
        Table(columns, lines, frozenset(best)),
        [
            {"row": title} | dict(row) | {f"paper: {c}": v for c, v in _paper(paper.get(row["paper"]))}
            for title, row in rows.items()
        ],
        comparison_page.facts(told) | _made(ctx),
        (),
        _plots(plots),
        [*table_figures.of_ablation(ctx.run / "ablation", told, out)],
    )


def write(ctx: Context, out: Path, found: Finding) -> None:
    """Write a table in its four forms."""
    title, stem = f"Table {found.number}: {CAPTIONS[found.number]}", out / f"table{found.number}"
    page = stem.with_suffix(".html")
    values: dict[str, Any] = {"title": title, "summary": found.summary, "reason": NOT_COMPARABLE, "notes": found.notes}
    shown = [sheet.shown(page) for sheet in found.sheets]
    values |= {"figures": found.figures, "plots": found.plots, "sheets": shown, "facts": found.facts}
    home = {"home": pages.relative(overview.write(ctx), page), "run": ctx.run.name}
    files.write_atomic(page, pages.render("table", **values, **home))
    text = f"# {title}\n\n{found.summary}\n\n{comparison_page.as_markdown(found.figures)}\n{NOT_COMPARABLE}\n"
    text += "".join(f"\n{note}\n" for note in found.notes)
    text += "".join(f"\n![{sheet['title']}]({sheet['file']})\n" for sheet in shown)
    text += "\n" + "".join(f"- {name}: {value}\n" for name, value in found.facts.items())
    files.write_atomic(stem.with_suffix(".md"), text.encode())
    files.write_atomic(stem.with_suffix(".csv"), _csv(found.rows).encode())
    plain = {"table": found.number, "rows": list(found.rows), "not_comparable": NOT_COMPARABLE}
    plain |= {"notes": list(found.notes), "measured": dict(found.facts)}
    files.write_atomic(stem.with_suffix(".json"), json.dumps(plain, indent=1).encode())
    say(f"tables: {page}")


def _made(ctx: Context) -> dict[str, str]:
    return {"run": ctx.run.name, "software": f"HyperNST {__version__}, PyTorch {metadata.version('torch')}"}


def _plots(plots: Sequence[tuple[str, Sequence[Dot], str, str, bool]]) -> list[dict[str, Any]]:
    return [
        {"title": title, "svg": charts.scatter(title, dots, across=across, up=up, joined=joined)}
        for title, dots, across, up, joined in plots
    ]


def _paper(numbers: paper_numbers.Numbers | None, *, seconds: bool = False) -> list[tuple[str, float | None]]:
    """The paper's numbers under their columns' names, None where it has none."""
    columns = (*paper_numbers.COLUMNS, *(["Time (s/img)"] if seconds else []))
    return list(zip(columns, numbers or [None] * len(columns), strict=True))


def _sifid(report: Mapping[str, Any]) -> str:
    return str(report["metrics"][SIFID])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Numbers in full, an empty field where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
