"""The figures of the tables: sheets of images that the evaluations kept, as the paper's Figures 3, 4 and 5."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, images
from pipeline.reports import pages, sheets
from stages.evaluate.comparison_page import SHOWN, cell

PAIRS = 4  # rows of a strip: of each the content, its images, the style
GRID = 4  # contents and styles of a grid
CLOSEST = "sae"  # the method that the paper shows beside its own


@dataclass(frozen=True)
class Sheet:
    """A written image: where, what it shows, its size in pixels."""

    path: Path
    title: str
    text: str
    width: int
    height: int

    def shown(self, page: Path) -> dict[str, Any]:
        """What a page shows of it."""
        size = {"width": self.width, "height": self.height}
        return {"title": self.title, "text": self.text, "file": pages.relative(self.path, page)} | size


def of_methods(folder: Path, report: Mapping[str, Any], titles: Mapping[str, str], out: Path) -> Iterator[Sheet]:
    """Every method on the same pairs (Figure 5), and whole grids of the closest method and ours (Figure 4)."""
    names = [name for name in titles if name != "unstylised"]
    pairs = _pairs(report["pictures"])
    columns = ["content", *(titles[name] for name in names), "style"]
    rows = [
        [_read(folder, "content", i), *(_read(folder, name, i, j) for name in names), _read(folder, "style", j)]
        for i, j in pairs
    ]
    text = "A pair per row, each method on it; white where a method that optimises each pair had no budget for it."
    yield _write(out / "figure5.png", "Every method on the same pairs", text, sheets.grid(rows, columns))
    for name in (CLOSEST, "hypernst"):
        if name in titles:
            contents, styles = (range(min(GRID, len(report["pictures"][k]))) for k in ("contents", "styles"))
            above = [np.full((256, 256, 3), 255, np.uint8), *(_read(folder, "style", j) for j in styles)]
            rows = [[_read(folder, "content", i), *(_read(folder, name, i, j) for j in styles)] for i in contents]
            title = f"{titles[name]}: contents in styles"
            sheet = sheets.grid(rows, [titles[name], *[""] * len(styles)], [above])
            yield _write(out / f"figure4-{name}.png", title, "A content per row, a style per column.", sheet)


def of_ablation(folder: Path, told: Mapping[str, Any], out: Path) -> Iterator[Sheet]:
    """The strips of an ablation, a pair per row and an image per line of the table (Figure 3 for Table 3)."""
    places = {
        row["paper"] if told["table"] == 3 else title: folder / "eval" / row["run"]
        for title, row in told["rows"].items()
    }
    first = next(iter(places.values()))
    rows = [
        [_read(first, "content", i), *(_read(p, "hypernst", i, j) for p in places.values()), _read(first, "style", j)]
        for i, j in _pairs(told["pictures"])
    ]
    columns = ["content", *(title.removesuffix(" (with both cond and loss)") for title in places), "style"]
    text = "A pair per row: the content, the rows of the table in their order, the style."
    name = "figure3.png" if told["table"] == 3 else f"strips{told['table']}.png"
    yield _write(out / name, "The same pairs by every row", text, sheets.grid(rows, columns))


def _pairs(pictures: Mapping[str, Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs whose images an evaluation keeps; methods with a budget begin with them (`comparison.pairs_of`)."""
    contents, styles = (min(SHOWN, len(pictures[name])) for name in ("contents", "styles"))
    return [(i, i % styles) for i in range(min(PAIRS, contents))]


def _read(folder: Path, *name: str | int) -> np.ndarray:
    path = folder / cell(*name)
    return images.decode(path.read_bytes()) if path.exists() else np.full((256, 256, 3), 255, np.uint8)


def _write(path: Path, title: str, text: str, sheet: np.ndarray) -> Sheet:
    files.write_atomic(path, images.encode(sheet))
    return Sheet(path, title, text, sheet.shape[1], sheet.shape[0])
