"""The gallery: a sheet of all stylisations with the images they were made from, and the same as a page."""

import itertools
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from pipeline import images
from pipeline.context import Context
from pipeline.files import write_atomic
from pipeline.progress import Progress
from pipeline.reports import html, sheets
from stages.apply.portrait import Portrait, cached, in_region
from stages.apply.stylist import Stylist
from stages.evaluate import comparison

Mix = tuple[int, int, int]  # numbers of the styles of hair, face and background
COLUMNS = ("photo", "regions", "inversion", "reconstruction")


def draw(ctx: Context, folder: Path, contents: int = 8, styles: int = 8) -> tuple[Path, Path]:
    """Write index.html and sheet.png into `folder` from the caches, unless they are up to date. Returns their paths."""
    faces = list(cached(ctx, "content", contents))
    chosen = list(cached(ctx, "style", styles))
    sheet, page, mark = folder / "sheet.png", folder / "index.html", folder / "gallery.stamp"
    stamp = comparison.stamp_of(comparison.describe(ctx, [], faces, chosen))
    if sheet.exists() and page.exists() and mark.exists() and mark.read_text() == stamp:
        return page, sheet
    stylist = Stylist(ctx)
    mixes = _mixes(chosen)
    targets = [*chosen, *(_mixed([chosen[i] for i in mix]) for mix in mixes)]
    progress = Progress("gallery", len(faces) * len(targets))
    rows = []
    for face in faces:
        row = [face.image, regions_of(face), stylist.invert(face), stylist.render(face, face.codes)]
        for target in targets:
            row.append(stylist.stylize(face, target))
            progress.add(1)
        rows.append(row)
    progress.close()
    write_atomic(sheet, images.encode(compose(rows, chosen, mixes)))
    write_atomic(page, _page(ctx, rows, faces, chosen, mixes, folder))
    write_atomic(mark, stamp.encode())
    return page, sheet


def compose(rows: Sequence[Sequence[np.ndarray]], styles: Sequence[Portrait], mixes: Sequence[Mix] = ()) -> np.ndarray:
    """One image: the styles and their regions on top, then one row per content, the cells of `mixes` last."""
    blank = np.full((sheets.CELL, sheets.CELL, 3), 255, np.uint8)
    head, tail = [blank] * len(COLUMNS), [blank] * len(mixes)
    above = [[*head, *(s.image for s in styles), *tail], [*head, *map(regions_of, styles), *tail]]
    names = [*COLUMNS, *(f"in style {i + 1}" for i in range(len(styles))), *map(_title, mixes)]
    return sheets.grid(rows, names, above)


def regions_of(portrait: Portrait) -> np.ndarray:
    """The portrait tinted by its regions."""
    return sheets.overlay(portrait.image, portrait.region)


def _mixes(styles: Sequence[Portrait]) -> list[Mix]:
    """Two ways to give hair, face and background the three styles whose mean colours are farthest apart."""
    colours = np.array([s.image.mean((0, 1)) for s in styles])
    ways = list(itertools.combinations(range(len(styles)), 3))
    if not ways:
        return []
    a, b, c = max(
        ways, key=lambda way: sum(np.linalg.norm(colours[i] - colours[j]) for i, j in itertools.combinations(way, 2))
    )
    return [(a, b, c), (c, a, b)]


def _mixed(styles: Sequence[Portrait]) -> Portrait:
    """The codes of three styles: the first one's hair, the second one's face, the third one's background."""
    mixed = styles[1]
    for region, style in enumerate(styles):
        mixed = in_region(mixed, region, style)
    return mixed


def _title(mix: Mix) -> str:
    """The numbers of the styles, in the order of the regions."""
    return "hair {}, face {}, back {}".format(*(i + 1 for i in mix))


def _page(
    ctx: Context,
    rows: Sequence[Sequence[np.ndarray]],
    faces: Sequence[Portrait],
    styles: Sequence[Portrait],
    mixes: Sequence[Mix],
    folder: Path,
) -> bytes:
    """Write the cells as JPEG files and return the page that shows them."""
    cells = folder / "cells"

    def cell(name: str, image: np.ndarray, title: str) -> str:
        write_atomic(cells / f"{name}.jpg", images.encode(image, ".jpg"))
        return f"<td>{html.image(f'cells/{name}.jpg', title)}</td>"

    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    head += "".join(cell(f"style-{i}", s.image, s.key) for i, s in enumerate(styles))
    head += "".join(f"<th>{_title(mix)}</th>" for mix in mixes)
    body = []
    for i, (row, face) in enumerate(zip(rows, faces, strict=True)):
        titles = [f"{face.key}: {name}" for name in COLUMNS] + [
            f"{face.key} in {style}" for style in (*(s.key for s in styles), *map(_title, mixes))
        ]
        cells_of_row = (cell(f"{i}-{j}", c, t) for j, (c, t) in enumerate(zip(row, titles, strict=True)))
        body.append(f"<tr>{''.join(cells_of_row)}</tr>")
    table = comparison.folder(ctx) / "table.md"
    numbers = f"<pre>{escape(table.read_text())}</pre>" if table.exists() else ""
    return html.page(
        "HyperNST",
        "<p>Each portrait as photo, regions, inversion and reconstruction, then in the style above the column; in the "
        "last columns hair, face and background have different styles, numbered from the left.</p>",
        f"<table><tr>{head}</tr>{''.join(body)}</table>{numbers}",
        f"<p>{html.image('sheet.png', 'all of these in one image')}</p>",
    )
