"""The gallery: a sheet of all stylisations with the images they were made from, and the same as a page."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.regions import REGIONS
from pipeline import images
from pipeline.context import Context
from pipeline.files import write_atomic
from pipeline.progress import Progress
from pipeline.reports import colours, pages, sheets
from stages.apply.memory import Memory
from stages.apply.stylist import Stylist
from stages.evaluate import comparison, methods, overview
from stages.evaluate.methods import METHODS, hindrance
from stages.loaders import hypernetwork
from stages.portraits.portrait import Portrait, cached, in_region

Mix = tuple[int, int, int]  # numbers of the styles of hair, face and background
COLUMNS = ("photo", "regions", "inversion", "reconstruction")
REFINED = 2  # styles that are shown refined as well, which takes seconds for each face


def draw(ctx: Context, contents: int = 8, styles: int = 8) -> tuple[Path, Path]:
    """Write gallery.html and sheet.png into the run's folder from the caches; what is up to date is not drawn again.

    Returns the paths of the run's overview and of the sheet.
    """
    faces = list(cached(ctx, "content", contents))
    chosen = list(cached(ctx, "style", styles))
    mixes = _mixes(chosen)
    refined = _refined(ctx, mixes)
    sheet, mark = ctx.run / "sheet.png", ctx.run / "gallery.stamp"
    recipe = comparison.describe(ctx, faces, chosen) | {"colours": colours.REGIONS, "refined": [*refined]}
    method = "refined" if refined else "hypernst"
    recipe |= comparison.recipe_of(ctx, method, METHODS[method], 1.0)
    stamp = comparison.stamp_of(recipe)
    if not (sheet.exists() and mark.exists() and mark.read_text() == stamp):
        rows = _stylize(ctx, faces, chosen, mixes, refined)
        drawn: dict[int | str, list[np.ndarray]] = {"style": [style.image for style in chosen], **dict(enumerate(rows))}
        for name, cells in drawn.items():
            for j, image in enumerate(cells):
                write_atomic(ctx.run / overview.cell(name, j), images.encode(image, ".jpg"))
        write_atomic(sheet, images.encode(compose(rows, chosen, mixes, refined)))
        write_atomic(mark, stamp.encode())
    write_atomic(ctx.run / overview.GALLERY, _page(ctx, faces, chosen, mixes, refined, sheet.name))
    return overview.write(ctx), sheet


def _stylize(
    ctx: Context, faces: Sequence[Portrait], styles: Sequence[Portrait], mixes: Sequence[Mix], refined: Sequence[int]
) -> list[list[np.ndarray]]:
    """One row per face: the face in COLUMNS, in each style, in each mix of styles, and in the refined styles."""
    stylist = Stylist(ctx, memory=Memory())
    refine = methods.refined(ctx, stylist) if refined else None
    targets = [*styles, *(_mixed([styles[i] for i in mix]) for mix in mixes)]
    progress = Progress("gallery", len(faces) * (len(targets) + len(refined)))
    rows = []
    for face in faces:
        row = [face.image, regions_of(face), stylist.invert(face), stylist.render(face, face.target)]
        for target in targets:
            row.append(stylist.stylize(face, target))
            progress.add(1)
        if refine:
            row += [refine(face, styles[i]) for i in refined]
            progress.add(len(refined))
        rows.append(row)
    progress.close()
    return rows


def compose(
    rows: Sequence[Sequence[np.ndarray]],
    styles: Sequence[Portrait],
    mixes: Sequence[Mix] = (),
    refined: Sequence[int] = (),
) -> np.ndarray:
    """One image: the styles and their regions on top, then one row per content, cells of `mixes` and `refined` last."""
    blank = np.full((sheets.CELL, sheets.CELL, 3), 255, np.uint8)
    head, tail = [blank] * len(COLUMNS), [blank] * (len(mixes) + len(refined))
    above = [[*head, *(s.image for s in styles), *tail], [*head, *map(regions_of, styles), *tail]]
    names = [*COLUMNS, *(f"in style {i + 1}" for i in range(len(styles))), *map(_title, mixes)]
    names += [f"style {i + 1}, refined" for i in refined]
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


def _refined(ctx: Context, mixes: Sequence[Mix]) -> Sequence[int]:
    """Numbers of the styles that are shown refined, the outermost in colour; none where nothing can be refined."""
    if ctx.profile.train.refinement_iterations != 1 or hindrance(ctx, METHODS["refined"], budget=1, strength=1.0):
        return ()
    return sorted(mixes[0])[:REFINED] if mixes else ()


def _mixed(styles: Sequence[Portrait]) -> Portrait:
    """What three styles give: the first one's hair, the second one's face, the third one's background."""
    mixed = styles[1]
    for region, style in enumerate(styles):
        mixed = in_region(mixed, region, style)
    return mixed


def _title(mix: Mix) -> str:
    """The numbers of the styles, in the order of the regions."""
    return "hair {}, face {}, back {}".format(*(i + 1 for i in mix))


def _page(
    ctx: Context,
    faces: Sequence[Portrait],
    styles: Sequence[Portrait],
    mixes: Sequence[Mix],
    refined: Sequence[int],
    sheet: str,
) -> bytes:
    """The page that shows the cells."""
    names = [*COLUMNS, *(f"in style {style.key}" for style in styles), *map(_title, mixes)]
    names += [f"in style {styles[i].key}, refined" for i in refined]
    rows = [
        {
            "key": face.key,
            "cells": [{"file": overview.cell(i, j), "alt": f"{face.key}: {name}"} for j, name in enumerate(names)],
        }
        for i, face in enumerate(faces)
    ]
    return pages.render(
        "gallery",
        home=overview.INDEX,
        run=ctx.run.name,
        weights=hypernetwork.origin(ctx),
        sheet=sheet,
        columns=COLUMNS,
        styles=[{"key": style.key, "file": overview.cell("style", j)} for j, style in enumerate(styles)],
        mixes=[{name: i + 1 for name, i in zip(REGIONS, mix, strict=True)} for mix in mixes],
        refined=[i + 1 for i in refined],
        rows=rows,
    )
