"""The parser's training images: labels and image stay together, and headwear is background."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.pretrain import parser_augment, parser_headwear
from stages.pretrain.parser_headwear import BACKGROUND, CASES, FACE, HAIR, Head

COLOURS = np.array([[60, 40, 20], [220, 180, 150], [90, 140, 200]], np.uint8)  # of hair, face, background


def blob() -> tuple[np.ndarray, np.ndarray]:
    """A face-like image and its label probabilities: hair above and beside an oval face, background around."""
    y, x = np.mgrid[0:256, 0:256]
    labels = np.zeros((256, 256, 3), np.uint8)
    labels[..., BACKGROUND] = 255
    labels[((x - 128) / 85) ** 2 + ((y - 120) / 100) ** 2 < 1] = (255, 0, 0)
    labels[((x - 128) / 60) ** 2 + ((y - 160) / 65) ** 2 < 1] = (0, 255, 0)
    return COLOURS[labels.argmax(2)], labels


def dressed(case: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image and regions of the blob after one of the cases, and the regions before."""
    image, labels = blob()
    head = Head.of(labels)
    assert head is not None
    out, after = getattr(parser_headwear, case)(image, labels, head, image, np.random.default_rng(seed))
    return out, after.argmax(2), labels.argmax(2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_redrawn_pairs_stay_together(seed: int) -> None:
    image, labels = blob()
    rng = np.random.default_rng(seed)
    pairs = [redraw(image, labels, image, rng) for redraw in (parser_augment.draw, parser_augment.draw_plain)]
    pairs += [parser_augment.draw_art(image, labels, rng), parser_augment.frame(image, labels, rng)]
    for drawn, target in pairs:
        assert drawn.shape == (256, 256, 3) and drawn.dtype == np.uint8
        assert target.shape == (256, 256, 3) and np.abs(target.astype(int).sum(2) - 255).max() <= 3
    bent, moved = parser_augment.bend(image, labels, np.random.default_rng(seed))
    sure = moved.max(2) == 255
    assert np.abs(bent[sure].astype(int) - COLOURS[moved.argmax(2)[sure]]).max() <= 2


def test_a_head_is_measured_from_chin_to_crown() -> None:
    head = Head.of(blob()[1])
    assert head is not None
    assert (head.middle, head.chin, head.width) == pytest.approx((128, 224, 114), abs=4)
    assert head.crown == pytest.approx((224 - 20) / 114, abs=0.1)
    assert Head.of(np.full((256, 256, 3), (0, 0, 255), np.uint8)) is None


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_labels_say_what_was_painted(case: str) -> None:
    for seed in range(8):
        image, after, before = dressed(case, seed)
        same = (image == COLOURS[before]).all(2)
        assert (after[170:200, 108:148] == FACE).all()
        assert (after == before)[same].mean() > 0.98
        if case == "beard":
            assert (after == before).all() and not same[205, 128]
            continue
        painted = (before == HAIR) & ~same & (after != FACE)  # the soft edges too
        assert (after == BACKGROUND)[painted].mean() > 0.85
        crown = (75 if case == "bald" else 40, 128)
        assert after[crown] == (FACE if case == "bald" else BACKGROUND) and not same[crown]


def test_regions_in_flat_colours_and_by_candlelight() -> None:
    image, labels = blob()
    cartoon = parser_augment.flat_regions(image, labels, np.random.default_rng(0)).astype(int)
    face = cartoon[130:170, 110:146].reshape(-1, 3)
    assert np.ptp(face, 0).max() <= 8 and np.abs(face.mean(0) - COLOURS[FACE]).max() > 8
    dark = parser_augment.candlelight(image, labels, np.random.default_rng(0)).astype(int)
    contrast = [np.abs(picture[40, 128].astype(int) - picture[40, 20]).sum() for picture in (image, dark)]
    assert contrast[1] < contrast[0] and dark[140, 128].sum() > 2 * dark[40, 128].sum()
