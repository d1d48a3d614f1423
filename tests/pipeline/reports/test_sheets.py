"""Sheets of images: what is written on them stays where it belongs."""

import numpy as np

from pipeline.reports import sheets


def test_a_long_title_stays_above_its_column() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    titles = ["No mask cond and no mask loss", "", "Content, unstylised, and more than fits above it", ""]
    line = sheets.grid([[image] * len(titles)], titles)[: sheets.TITLE]
    column = sheets.CELL + sheets.GAP
    for i, title in enumerate(titles):
        written = (line[:, i * column : (i + 1) * column] < 255).any((0, 2))
        assert bool(title) == written.any() and not written[sheets.CELL :].any()
