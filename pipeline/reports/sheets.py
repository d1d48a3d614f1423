"""Images for people: rows of images under titles, captioned panels, and the regions of an image in colour."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from pipeline.reports import colours

SIDE = 192  # pixels of a panel
LABEL = 18  # pixels of the caption above a panel
CELL, GAP, TITLE = 160, 4, 20  # pixels of a grid's cell, of the white gap between cells, of the line of titles

FONT = cv2.FONT_HERSHEY_SIMPLEX

Panel = tuple[str, np.ndarray]


def overlay(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The image u8 [H, W, 3] tinted by its region map u8 [h, w]; pixels of unknown region are not tinted."""
    if region.shape != image.shape[:2]:
        region = cv2.resize(region, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    tint = image.copy()
    for label, colour in enumerate(colours.REGIONS.values()):
        tint[region == label] = colour
    return cv2.addWeighted(image, 0.45, tint, 0.55, 0)


def grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], above: Sequence[Sequence[np.ndarray]] = ()
) -> np.ndarray:
    """A grid u8 [H, W, 3]: the rows `above`, then a line of titles, then `rows` of images u8 [H, W, 3] of any size."""
    return np.concatenate([*map(_strip, above), _titles(titles), *map(_strip, rows)])


def _strip(cells: Sequence[np.ndarray]) -> np.ndarray:
    return beside([cv2.resize(c, (CELL, CELL), interpolation=cv2.INTER_AREA) for c in cells], GAP)


def beside(images: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """Images u8 [H, W, 3] of one height side by side, `gap` white pixels to the right of and below each."""
    return np.concatenate([np.pad(one, ((0, gap), (0, gap), (0, 0)), constant_values=255) for one in images], 1)


def _titles(names: Sequence[str]) -> np.ndarray:
    line = np.full((TITLE, len(names) * (CELL + GAP), 3), 255, np.uint8)
    for i, name in enumerate(names):
        (width, _), _ = cv2.getTextSize(name, FONT, 0.42, 1)
        scale = 0.42 * min(1.0, (CELL - 8) / max(1, width))  # a long title is small, and stays above its column
        write(line, name, (i * (CELL + GAP) + 2, 14), scale, (60, 60, 60))
    return line


def stack(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Strips u8 [H, W, 3] of any width, one below the other, padded with white."""
    width = max(s.shape[1] for s in strips)
    return np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips])


def panels(captioned: Sequence[Panel]) -> np.ndarray:
    """Panels u8 [SIDE, SIDE, 3] side by side, each under its caption: u8 [LABEL + SIDE + 2, W, 3]."""
    return np.concatenate([_captioned(*panel) for panel in captioned], axis=1)


def _captioned(caption: str, image: np.ndarray) -> np.ndarray:
    label = np.full((LABEL, image.shape[1], 3), 255, np.uint8)
    write(label, caption[:34], (3, 12), 0.36 if len(caption) < 28 else 0.31, (0, 0, 0))
    return np.pad(np.concatenate([label, image]), ((0, 2), (0, 2), (0, 0)), constant_values=255)


def panel(image: Any) -> np.ndarray:
    """An encoded image or an RGB array as u8 [SIDE, SIDE, 3]; black when it does not decode."""
    if isinstance(image, bytes):
        image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers [L, D] as grey levels u8 [SIDE, SIDE, 3]: the least is black, the largest is white."""
    flat = values.reshape(values.shape[0], -1).astype(np.float32)
    low, high = np.nanmin(flat), np.nanmax(flat)
    grey = np.nan_to_num((flat - low) / (high - low or 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)


def write(
    image: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int], font: int = FONT
) -> None:
    """Write `text` on the image u8 [H, W, 3], in place; its lower left corner is `at` (x, y)."""
    cv2.putText(image, text, at, font, scale, colour, 1, cv2.LINE_AA)
