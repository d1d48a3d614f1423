"""Cards: colours and their shares, and words that stay inside."""

import numpy as np
import pytest

from bench.pictures import cards


def test_the_main_colours_of_an_image_have_their_shares() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    image[:, :48], image[:, 48:72], image[:, 72:] = (20, 30, 40), (250, 220, 30), (200, 30, 30)
    found = cards.dominant(image)
    assert [colour for colour, _ in found] == [(20, 30, 40), (200, 30, 30), (250, 220, 30)]
    assert [share for _, share in found] == pytest.approx([0.5, 0.25, 0.25])
    assert found == cards.dominant(image)


def test_a_painting_becomes_as_many_colours_as_asked_for() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    found = cards.dominant(image, 5)
    assert len(found) == 5 and sum(share for _, share in found) == pytest.approx(1)


def test_a_card_has_stripes_by_share_in_bands_one_above_the_other() -> None:
    bands = [[((255, 0, 0), 0.25), ((0, 0, 255), 0.75)], [((0, 255, 0), 1.0)]]
    made = cards.card(bands, "", "", (200, 5 * cards.LINE + 8 + 60))
    assert made.shape == (5 * cards.LINE + 68, 200, 3)
    assert (made[:30, :50] == (255, 0, 0)).all() and (made[:30, 50:] == (0, 0, 255)).all()
    assert (made[30:60] == (0, 255, 0)).all() and (made[60:] == 255).all()


@pytest.mark.parametrize("title", ["Old Plum", "Self-Portrait with a Straw Hat, the obverse of another", "W" * 90])
def test_no_word_of_a_card_is_clipped(title: str) -> None:
    made = cards.card([], title, "Vincent van Gogh, " * 9, (200, 160))
    assert (made[:, :190] < 128).any() and (made[:, -4:] == 255).all() and (made[-3:] == 255).all()


def test_words_that_do_not_fit_become_three_points() -> None:
    assert cards.wrapped("Old Plum", 200, cards.BOLD, 3) == ["Old Plum"]
    assert cards.wrapped("Self-Portrait with a Straw Hat", 200, cards.BOLD, 1) == ["Self-Portrait with a..."]
    assert cards.wrapped("", 200, cards.BOLD, 3) == []
    (line,) = cards.wrapped("W" * 90, 200, cards.BOLD, 3)
    assert line.rstrip(".") == "W" * (len(line) - 3)
