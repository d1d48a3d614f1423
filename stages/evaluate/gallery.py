"""The gallery: a sheet of every stylisation with what it was made from, and the same as a page."""

import html
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline import images
from pipeline.context import Context
from pipeline.files import write_atomic
from pipeline.progress import Progress
from stages.apply.portrait import Portrait, cached, in_region
from stages.apply.stylist import Stylist
from stages.evaluate import comparison as evaluate

CELL, GAP, LABEL = 160, 4, 20
REGION_COLOURS = np.array([[222, 140, 60], [238, 205, 175], [70, 110, 150]], np.uint8)
Mix = tuple[int, int, int]  # numbers of the styles of hair, face and background
COLUMNS = ("photo", "regions", "inversion", "reconstruction")


def draw(ctx: Context, folder: Path, contents: int = 8, styles: int = 8) -> tuple[Path, Path]:
    """Draw index.html and sheet.png into `folder` from the caches, unless they are up to date; returns their paths."""
    faces = list(cached(ctx, "content", contents))
    chosen = list(cached(ctx, "style", styles))
    sheet, page, mark = folder / "sheet.png", folder / "index.html", folder / "gallery.stamp"
    stamp = evaluate.stamp_of(evaluate.describe(ctx, [], faces, chosen))
    if sheet.exists() and page.exists() and mark.exists() and mark.read_text() == stamp:
        return page, sheet
    stylist = Stylist(ctx)
    mixes = _mixes(chosen)
    targets = [*chosen, *(_mixed([chosen[i] for i in mix]) for mix in mixes)]
    progress = Progress("gallery", len(faces) * len(targets))
    rows = []
    for face in faces:
        row = [face.image, overlay(face), stylist.invert(face), stylist.render(face, face.codes)]
        for target in targets:
            row.append(stylist.stylise(face, target))
            progress.add(1)
        rows.append(row)
    progress.close()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(sheet, images.encode(compose(rows, chosen, mixes)))
    write_atomic(page, _page(ctx, rows, faces, chosen, mixes, folder).encode())
    write_atomic(mark, stamp.encode())
    return page, sheet


def overlay(portrait: Portrait) -> np.ndarray:
    """The picture tinted by region: hair orange, face light, background blue; unknown untouched."""
    tint = portrait.image.copy()
    for region, colour in enumerate(REGION_COLOURS):
        tint[portrait.region == region] = colour
    return cv2.addWeighted(portrait.image, 0.45, tint, 0.55, 0)


def compose(rows: Sequence[Sequence[np.ndarray]], styles: Sequence[Portrait], mixes: Sequence[Mix] = ()) -> np.ndarray:
    """One picture: the styles and their regions on top, under them a row a content, its cells of `mixes` last."""
    blank = np.full((CELL, CELL, 3), 255, np.uint8)
    head, tail = [blank] * len(COLUMNS), [blank] * len(mixes)
    top = [*head, *(s.image for s in styles), *tail]
    second = [*head, *(overlay(s) for s in styles), *tail]
    names = [*COLUMNS, *(f"in style {i + 1}" for i in range(len(styles))), *map(_told, mixes)]
    return np.concatenate([_strip(top), _strip(second), _labels(names), *(_strip(row) for row in rows)])


def _mixes(styles: Sequence[Portrait]) -> list[Mix]:
    """Two ways to give hair, face and background the three styles whose mean colours lie farthest apart."""
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


def _told(mix: Mix) -> str:
    """Which styles are mixed, in the order of the regions."""
    return "hair {}, face {}, back {}".format(*(i + 1 for i in mix))


def _strip(cells: Sequence[np.ndarray]) -> np.ndarray:
    small = [cv2.resize(c, (CELL, CELL), interpolation=cv2.INTER_AREA) for c in cells]
    return np.concatenate([np.pad(c, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for c in small], 1)


def _labels(names: Sequence[str]) -> np.ndarray:
    strip = np.full((LABEL, len(names) * (CELL + GAP), 3), 255, np.uint8)
    for i, name in enumerate(names):
        place = (i * (CELL + GAP) + 2, 14)
        cv2.putText(strip, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (60, 60, 60), 1, cv2.LINE_AA)
    return strip


def _page(
    ctx: Context,
    rows: Sequence[Sequence[np.ndarray]],
    faces: Sequence[Portrait],
    styles: Sequence[Portrait],
    mixes: Sequence[Mix],
    folder: Path,
) -> str:
    """Write the cells as JPEG files and return the page that shows them."""
    cells = folder / "cells"
    cells.mkdir(exist_ok=True)

    def cell(name: str, image: np.ndarray, title: str) -> str:
        write_atomic(cells / f"{name}.jpg", images.encode(image, ".jpg"))
        return f'<td><img src="cells/{name}.jpg" title="{html.escape(title)}"></td>'

    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    head += "".join(cell(f"style-{i}", s.image, s.key) for i, s in enumerate(styles))
    head += "".join(f"<th>{_told(mix)}</th>" for mix in mixes)
    body = []
    for i, (row, face) in enumerate(zip(rows, faces, strict=True)):
        titles = [f"{face.key}: {name}" for name in COLUMNS] + [
            f"{face.key} in {told}" for told in (*(s.key for s in styles), *map(_told, mixes))
        ]
        cells_of_row = (cell(f"{i}-{j}", c, t) for j, (c, t) in enumerate(zip(row, titles, strict=True)))
        body.append(f"<tr>{''.join(cells_of_row)}</tr>")
    table = evaluate.folder(ctx) / "table.md"
    numbers = f"<pre>{html.escape(table.read_text())}</pre>" if table.exists() else ""
    return f"""<!doctype html><meta charset="utf-8"><title>HyperNST: {html.escape(folder.name)}</title>
<style>body{{font:14px system-ui;margin:2em}}img{{width:128px;display:block}}th{{font-weight:normal;color:#555}}</style>
<h1>HyperNST</h1>
<p>Each portrait as photo, regions, inversion and reconstruction, then in the style above the column; in
the last columns hair, face and background have styles of their own, counted from the left.</p>
<table><tr>{head}</tr>{"".join(body)}</table>{numbers}<p><img src="sheet.png" style="width:100%"></p>
"""
