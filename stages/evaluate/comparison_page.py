"""The comparison as a table and as a page."""

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline import files, images
from pipeline.context import Context
from pipeline.reports import html
from stages.apply.portrait import Portrait
from stages.evaluate.methods import ABILITIES, TITLES

SHOWN = 8  # contents and styles in the page's grid


def table(results: Mapping[str, Mapping[str, float]], spread: Mapping[str, Any], sifid: Mapping[str, str]) -> str:
    """The paper's Table 1 and the paired differences as Markdown; lower is better in every number.

    `spread` is that of `statistics.describe`, `sifid` has the titles of the SIFID columns.
    """
    metrics = {"lpips_alex": "LPIPS (Alexnet)", "lpips_vgg": "LPIPS (VGG)", **sifid}
    percent = f"{100 * spread['confidence']:.0f} %"
    rows = _head("Model", *metrics.values(), "Time (s/img)", "Interpolation", "Editing")
    for name, values in results.items():
        numbers = [_number(values[m], spread["intervals"][name][m]) for m in metrics]
        abilities = ABILITIES.get(name, ("no", "no"))
        rows += [_line(TITLES.get(name, name), *numbers, f"{values['seconds_per_image']:.3f}", *abilities)]
    rows += ["", f"Means over pairs, with {percent} bootstrap intervals."]
    if len(results) > 1:
        rows += ["", "Paired differences, first minus second: below 0 the first is better.", ""]
        rows += _head("Methods", *metrics.values())
        for name, other in itertools.combinations(reversed(list(results)), 2):
            gaps = spread["differences"][name][other]
            numbers = [_number(gaps[m]["mean"], gaps[m]["interval"]) for m in metrics]
            rows += [_line(f"{TITLES.get(name, name)} minus {TITLES.get(other, other)}", *numbers)]
    return "\n".join(rows) + "\n"


def _head(*titles: str) -> list[str]:
    return [_line(*titles), "|---" * len(titles) + "|"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, interval: Sequence[float]) -> str:
    return f"{value:.4g} ({interval[0]:.4g} to {interval[1]:.4g})"


def page(
    ctx: Context,
    text: str,
    methods: list[str],
    faces: list[Portrait],
    styles: list[Portrait],
    out: Path,
) -> bytes:
    """The page: the table `text`, then for each shown content one row per method and one column per style."""
    for kind, portraits in (("content", faces), ("style", styles)):
        for i, portrait in enumerate(portraits[:SHOWN]):
            files.write_atomic(out / "cells" / f"{kind}-{i}.jpg", images.encode(portrait.image, ".jpg"))

    def image(name: str, title: str) -> str:
        return f"<td>{html.image(f'cells/{name}.jpg', title)}</td>"

    top = "<tr><td></td><td></td>" + "".join(image(f"style-{j}", s.key) for j, s in enumerate(styles[:SHOWN])) + "</tr>"
    body = [top]
    for i, face in enumerate(faces[:SHOWN]):
        for name in (m for m in methods if m != "unstylised"):
            cells = "".join(image(f"{name}-{i}-{j}", f"{face.key} in {s.key}") for j, s in enumerate(styles[:SHOWN]))
            body.append(f"<tr><th>{TITLES.get(name, name)}</th>{image(f'content-{i}', face.key)}{cells}</tr>")
    return html.page(
        f"Evaluation of {ctx.run.name}",
        f"<p>{len(faces)} contents x {len(styles)} styles, profile {escape(ctx.profile.name)}; means over all pairs, "
        "lower is better. LPIPS is to the content, SIFID to the style.</p>",
        f"<pre>{escape(text)}</pre><table>{''.join(body)}</table>",
    )
