"""The gallery: its columns, and the styles it mixes."""

import numpy as np

from models.regions import REGIONS
from pipeline.reports import sheets
from stages.evaluate import gallery
from stages.portraits.portrait import Portrait, in_region

COLOURS = ([10, 10, 10], [250, 20, 20], [20, 20, 15], [30, 40, 250], [200, 30, 30])


def portrait(i: int) -> Portrait:
    image = np.full((256, 256, 3), COLOURS[i], np.uint8)
    codes = np.full((4, 256), i, np.float32) + np.arange(4, dtype=np.float32)[:, None] / 10
    return Portrait(f"p{i}", image, np.zeros((256, 256), np.uint8), np.zeros((18, 512)), codes, np.ones(3, bool))


STYLES = [portrait(i) for i in range(len(COLOURS))]


def test_the_mixed_styles_are_those_of_the_most_different_colours() -> None:
    assert gallery._mixes(STYLES) == [(0, 1, 3), (3, 0, 1)]
    assert gallery._mixes(STYLES[:2]) == []


def test_a_mix_takes_each_regions_code_from_its_own_style() -> None:
    mixed = gallery._mixed([STYLES[i] for i in (3, 0, 1)])
    assert np.allclose(mixed.codes[: len(REGIONS), 0], [3.0, 0.1, 1.2])
    other = in_region(STYLES[0], 1, STYLES[4])
    assert np.array_equal(other.codes[1], STYLES[4].codes[1])
    assert np.array_equal(other.codes[[0, 2, 3]], STYLES[0].codes[[0, 2, 3]])
    assert np.allclose(STYLES[0].codes[1], 0.1)  # and the target itself is left alone


def test_a_sheet_has_a_column_a_style_a_mix_and_a_refined_style() -> None:
    mixes = gallery._mixes(STYLES)
    columns = len(gallery.COLUMNS) + len(STYLES) + len(mixes) + 2
    sheet = gallery.compose([[STYLES[i % 5].image for i in range(columns)]] * 2, STYLES, mixes, refined=[3, 4])
    side = sheets.CELL + sheets.GAP
    assert sheet.shape == (4 * side + sheets.TITLE, columns * side, 3)
