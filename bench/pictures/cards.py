"""Cards that stand for pictures which are not shown themselves: stripes of their main colours, and words beneath."""

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.reports.sheets import FONT, write

BOLD = cv2.FONT_HERSHEY_DUPLEX
LINE = 26  # pixels from a line of text to the next
MARGIN = 8  # pixels that stay free to the right of the words
SCALE = 0.72  # of the text, legible where the card is shown at half its size
DARK, GREY = (30, 30, 30), (95, 95, 95)

Stripe = tuple[tuple[int, int, int], float]  # a colour, RGB, and its share


def dominant(image: np.ndarray, count: int = 7) -> list[Stripe]:
    """At most `count` main colours of an image u8 [H, W, 3], the darkest first, and the share of the image of each."""
    small = cv2.resize(image, (96, 96), interpolation=cv2.INTER_NEAREST)  # strokes do not become grey
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    count = min(count, len(np.unique(small.reshape(-1, 3), axis=0)))
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 30, 0.0)
    _, labels, centres = cv2.kmeans(lab, count, None, stop, 3, cv2.KMEANS_PP_CENTERS)
    colours = (cv2.cvtColor(centres[None], cv2.COLOR_LAB2RGB)[0].clip(0, 1) * 255).round().astype(int)
    shares = np.bincount(labels[:, 0], minlength=count) / len(lab)
    order = np.argsort(centres[:, 0])
    return [((int(r), int(g), int(b)), float(shares[i])) for i in order for r, g, b in [colours[i]]]


def card(bands: Sequence[Sequence[Stripe]], title: str, text: str, size: tuple[int, int]) -> np.ndarray:
    """A card u8 [H, W, 3] of `size` (W, H): bands of stripes above, then a title of three lines at most, then a text.

    Stripes are as wide as their share of their band, which are as high as each other. Words that do not fit are left
    out, with three points in their place.
    """
    width, height = size
    made = np.full((height, width, 3), 255, np.uint8)
    coloured = height - 5 * LINE - 8
    for number, band in enumerate(bands):
        ends = np.cumsum([0.0, *(share for _, share in band)])
        ends = (ends / ends[-1] * width).round().astype(int)
        top, bottom = (round(coloured * i / len(bands)) for i in (number, number + 1))
        for (colour, _), left, right in zip(band, ends, ends[1:], strict=False):
            made[top:bottom, left:right] = colour
    lines = [(line, BOLD, DARK) for line in wrapped(title, width - MARGIN, BOLD, 3)]
    lines += [(line, FONT, GREY) for line in wrapped(text, width - MARGIN, FONT, 5 - len(lines))]
    for number, (line, font, colour) in enumerate(lines):
        write(made, line, (2, coloured + LINE * (number + 1)), SCALE, colour, font)
    return made


def wrapped(text: str, width: int, font: int, most: int) -> list[str]:
    """The text in at most `most` lines that are not wider than `width` pixels."""

    def fits(line: str) -> bool:
        return cv2.getTextSize(line, font, SCALE, 1)[0][0] <= width

    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    cut = len(lines) > most
    lines = lines[:most]
    for i, line in enumerate(lines):
        end = "..." if cut and i == most - 1 else ""
        while not fits(line + end):
            line, end = line[:-1], "..."
        lines[i] = line.rstrip() + end
    return lines
