"""The comparison as a table and as a page."""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from pipeline import files, images
from pipeline.context import Context
from pipeline.reports import html
from stages.apply.portrait import Portrait
from stages.evaluate.methods import ABILITIES, TITLES

SHOWN = 8  # contents and styles in the page's grid


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The paper's Table 1 as Markdown; lower is better in every number."""
    columns = (
        "Model",
        "LPIPS (Alexnet)",
        "LPIPS (VGG)",
        "SIFID (64)",
        "SIFID (192)",
        "Time (s/img)",
        "Interpolation",
        "Editing",
    )
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, r in results.items():
        numbers = [
            f"{r['lpips_alex']:.4f}",
            f"{r['lpips_vgg']:.4f}",
            f"{r['sifid_64']:.3f}",
            f"{r['sifid_192']:.3f}",
            f"{r['seconds_per_image']:.3f}",
        ]
        rows.append(" | ".join([f"| {TITLES.get(name, name)}", *numbers, *ABILITIES.get(name, ("no", "no"))]) + " |")
    return "\n".join(rows) + "\n"


def page(
    ctx: Context,
    results: Mapping[str, Mapping[str, float]],
    methods: list[str],
    faces: list[Portrait],
    styles: list[Portrait],
    out: Path,
) -> bytes:
    """The page: the table, then for each shown content one row per method and one column per style."""
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
        f"<pre>{escape(table(results))}</pre><table>{''.join(body)}</table>",
    )
