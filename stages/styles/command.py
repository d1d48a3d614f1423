"""The commands `search` and `styles`."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.progress import say
from pipeline.reports import pages
from stages.portraits.kept import KeptPortraits
from stages.portraits.reader import PortraitReader, file_of
from stages.styles.blocks import WHOLE, Found
from stages.styles.collection import Styles, code_of
from stages.styles.duplicates import compare
from stages.styles.map import METHODS, Map, by_neighbours

SIDE = 160  # px of a picture on a page
MAP, DOTS = 2400, 5000  # px of the map, and the styles up to which it shows pictures
THUMB = 72


def run(
    ctx: Context,
    *,
    like: str = "",
    region: str = WHOLE,
    k: int = 12,
    text: str = "",
    duplicates: bool = False,
    file: Path | None = None,
    html: Path | None = None,
    as_json: bool = False,
) -> str:
    """What a search found, as lines or JSON; with `html` also as a page with pictures.

    `like` is an image's file or the key of a style, `file` an aladin.h5 whose styles alone are searched. `duplicates`
    shows near duplicates, and the `k` styles that are least like any other.
    Raises: UserError when there is no such style (2), or the image cannot be used or lacks the region (1).
    """
    styles = Styles(ctx, file)
    facts: Any
    if duplicates:
        pairs, lone = compare(styles.blocks(region), k, styles.aligned)
        facts = {"duplicates": [pair._asdict() for pair in pairs], "outliers": [vars(found) for found in lone]}
        alike = [Found(key, key, pair.correlation) for pair in pairs for key in pair[:2]]
        lines = [f"{pair.correlation:.3f}  {pair.first}  {pair.second}" for pair in pairs] or ["none"]
        text = "\n".join(["near duplicates:", *lines, "", "least like any other:", *map(_line, lone)])
        sections = {"Near duplicates": alike, "Least like any other": lone}
    else:
        found = _search(styles, like, region, k, text)
        facts, sections = [vars(one) for one in found], {"": found}
        text = "\n".join(map(_line, found)) or "no style of this name"
    if html:
        named = f"Styles like {Path(like).name}" if like else "Styles"
        write_atomic(html, _page(styles, "Styles compared" if duplicates else named, sections))
    return json.dumps(facts, indent=1) if as_json else text


def _search(styles: Styles, like: str, region: str, k: int, text: str) -> list[Found]:
    if not like:
        return styles.search(None, region, k, text)
    if not Path(like).is_file():
        return styles.search(styles.code(like, region), region, k, text, like)
    style = PortraitReader(styles.ctx, KeptPortraits(styles.ctx))(*file_of(like), "style")
    return styles.search(code_of(style, region), region, k, text)


def _page(styles: Styles, title: str, sections: Mapping[str, Sequence[Found]]) -> bytes:
    """A page of the styles that were found, with their pictures."""
    shown = []
    for name, found in sections.items():
        pictures = styles.pictures([one.key for one in found])
        shown.append({"name": name, "styles": [*map(_cell, found, pictures)]})
    return pages.render("search", title=title, sections=shown)


def write_map(
    ctx: Context, output: Path, region: str = WHOLE, file: Path | None = None, method: str = METHODS[0]
) -> int:
    """Write the styles' places on a plane: .json with key, title, x and y of each, or .png with their pictures.

    `method` is one of METHODS. Raises: UserError(2) when the output is neither, or as `by_neighbours`.
    """
    kind = output.suffix.lower()
    if kind not in (".json", ".png"):
        raise UserError(f"{output}: expected a name that ends in .json or .png", 2)
    styles = Styles(ctx, file, keep=True)
    blocks = list(styles.blocks(region))
    names = [name for block in blocks for name in zip(block.keys, block.titles, strict=True)]
    if not names:
        raise UserError(f"{styles.file}: has no style with this region", 2)
    codes = np.concatenate([block.codes for block in blocks])
    places = Map(blocks).place(codes) if method == METHODS[0] else by_neighbours(codes, ctx.profile.seed)
    placed = [(key, title, x, y) for (key, title), (x, y) in zip(names, places.tolist(), strict=True)]
    if kind == ".json":
        rows = [dict(zip(("key", "title", "x", "y"), row, strict=True)) for row in placed]
        write_atomic(output, json.dumps(rows, indent=1).encode())
    else:
        write_atomic(output, images.encode(_drawn(styles, placed)))
    say(f"styles map: {len(placed)} styles")
    print(output)
    return 0


def _drawn(styles: Styles, placed: Sequence[tuple[str, str, float, float]]) -> np.ndarray:
    """The map u8 [H, W, 3], at most MAP wide and high, with a picture at each place, or a dot where there are many."""
    places = np.array([row[2:] for row in placed])
    size = max(float(np.ptp(places, axis=0).max()), 1e-9)
    corners = ((places - places.min(0)) / size * (MAP - THUMB)).astype(int)
    width, height = corners.max(0) + THUMB
    canvas = np.full((height, width, 3), 255, np.uint8)
    if len(placed) > DOTS:
        for corner in corners.tolist():
            cv2.circle(canvas, corner, 3, (60, 60, 60), -1)
        return canvas
    for (x, y), picture in zip(corners.tolist(), styles.pictures([row[0] for row in placed]), strict=True):
        canvas[y : y + THUMB, x : x + THUMB] = square(picture, THUMB)
    return canvas


def square(picture: bytes, side: int) -> np.ndarray:
    """The central square of an encoded picture, u8 [side, side, 3]."""
    rgb = images.decode(picture)
    height, width = rgb.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return cv2.resize(rgb[top : top + edge, left : left + edge], (side, side), interpolation=cv2.INTER_AREA)


def _cell(found: Found, picture: bytes) -> dict[str, str]:
    data = f"data:image/jpeg;base64,{base64.b64encode(images.encode(square(picture, SIDE), '.jpg')).decode()}"
    likeness = "" if found.likeness is None else f"{found.likeness:.3f}"
    return {"key": found.key, "title": found.title, "likeness": likeness, "data": data}


def _line(found: Found) -> str:
    name = found.key if found.title == found.key else f"{found.key}  {found.title}"
    return name if found.likeness is None else f"{found.likeness:.3f}  {name}"
