"""Steering is measured on renderers whose control is known: full, none, and with the regions exchanged."""

import numpy as np
import pytest

from models.regions import REGIONS
from pipeline.reports import sheets
from stages.evaluate import control
from stages.portraits.portrait import Portrait, Target


def portrait(seed: int, *, hair: bool = True) -> Portrait:
    """Hair, face and background, each of one colour, which is also what its code says."""
    rng = np.random.default_rng(seed)
    region = np.full((256, 256), 2, np.uint8)
    region[:100] = 0 if hair else 2
    region[120:200, 60:200] = 1
    colours = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    codes = np.zeros((4, 256), np.float32)
    codes[:, :3] = colours
    valid = np.array([hair, True, True])
    return Portrait(f"p{seed}", colours[region], region, np.zeros((18, 512), np.float32), codes, valid)


def paint(order: tuple[int, int, int, int]) -> control.Render:
    """A renderer that gives region i the colour of code order[i]."""
    return lambda content, target: target.codes[list(order), :3].astype(np.uint8)[content.region]


FOUND = control.triples([portrait(1), portrait(2, hair=False)], [portrait(s) for s in range(10, 20)], 8)


def test_triples_have_hair_and_a_face_and_two_styles() -> None:
    assert len(FOUND) == 8 and {t.content.key for t in FOUND} == {"p1"}
    assert all(t.a.key != t.b.key for t in FOUND) and len({t.a.key for t in FOUND}) == 8
    assert control.triples([portrait(1)], [portrait(3)], 8) == []
    assert control.triples([portrait(1, hair=False)], [portrait(s) for s in range(4)], 8) == []


def test_a_renderer_that_obeys_scores_full_and_one_that_exchanges_regions_scores_nothing() -> None:
    obeying, rows = control.regions(paint((0, 1, 2, 3)), FOUND)
    assert obeying == {
        "control_hair": (1, 8),
        "control_face": (1, 8),
        "control_swap": (1, 16),
        "control_extent": (pytest.approx(1), 16),
    }
    assert len(rows) == 8 and np.array_equal(rows[0][3], FOUND[0].content.image)
    assert np.array_equal(rows[0][6][0, 0], FOUND[0].a.image[0, 0])  # hair of A,
    assert np.array_equal(rows[0][6][150, 128], FOUND[0].b.image[150, 128])  # face of B,
    assert np.array_equal(rows[0][6][255, 0], FOUND[0].content.image[255, 0])  # the content's own background
    deaf, _ = control.regions(paint((3, 3, 3, 3)), FOUND)  # sees the whole-image code only
    assert deaf["control_swap"][0] == 0 and deaf["control_extent"][0] == 0
    crossed, _ = control.regions(paint((1, 0, 2, 3)), FOUND)
    assert crossed["control_hair"][0] < 1 > crossed["control_face"][0]


def test_a_walk_is_monotonic_or_not() -> None:
    pairs = [(portrait(1), portrait(2)), (portrait(3), portrait(4))]

    def mix(content: Portrait, style: Portrait, strength: float) -> Target:
        return Target(content.codes + strength * (style.codes - content.codes), None)

    def score(image: np.ndarray, content: Portrait, style: Portrait) -> dict[str, float]:
        far = {"style": style.codes, "content": content.codes}
        return {
            n: float(np.abs(image - c[:3, :3].astype(np.uint8)[content.region].astype(float)).sum())
            for n, c in far.items()
        } | {"constant": 1.0}

    found, rows = control.walk(paint((0, 1, 2, 3)), mix, pairs, score)
    assert found["style"] == (pytest.approx(-1), 2) and found["content"] == (pytest.approx(1), 2)
    assert found["constant"] == (0, 2)
    assert [len(row) for row in rows] == [13, 13] and np.array_equal(rows[1][1], pairs[1][0].image)
    side = sheets.CELL + sheets.GAP
    assert sheets.grid(rows, ["content"] * 13).shape == (sheets.TITLE + 2 * side, 13 * side, 3)


def test_spearman_goes_by_ranks_and_shares_ties() -> None:
    assert control.spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert control.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert control.spearman([1, 2, 3, 4, 5], [1, 2, 2, 3, 1]) == pytest.approx(1.5 / 90**0.5)  # ranks 1.5 3.5 3.5 5 1.5
    assert REGIONS[control.HAIR] == "hair" and REGIONS[control.FACE] == "face"
