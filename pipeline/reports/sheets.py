"""Pictures of cache rows as people look at them: the image, its regions, its windows, what it generates, its kin."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

SIDE = 192  # pixels of a panel
LABEL = 18  # of the caption above it
COLOURS = {0: (230, 160, 40), 1: (70, 190, 90), 2: (70, 110, 230), 255: (90, 90, 90)}  # as NAMES, then unknown

Panel = tuple[str, np.ndarray]


def sheet(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Strips below each other."""
    width = max(s.shape[1] for s in strips)
    return np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips])


def overlay(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The image tinted by region."""
    tint = np.zeros((*region.shape, 3), np.uint8)
    for value, colour in COLOURS.items():
        tint[region == value] = colour
    tint = cv2.resize(tint, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.addWeighted(image, 0.5, tint, 0.5, 0)


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers [L,D] as grey levels, black the least and white the most of them."""
    flat = values.reshape(values.shape[0], -1).astype(np.float32)
    low, high = np.nanmin(flat), np.nanmax(flat)
    grey = np.nan_to_num((flat - low) / (high - low or 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)


def png(rgb: np.ndarray) -> bytes:
    """RGB u8 as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def captioned(caption: str, picture: np.ndarray) -> np.ndarray:
    label = np.full((LABEL, picture.shape[1], 3), 255, np.uint8)
    write(label, caption[:34], (3, 12), 0.36 if len(caption) < 28 else 0.31, (0, 0, 0))
    return np.pad(np.concatenate([label, picture]), ((0, 2), (0, 2), (0, 0)), constant_values=255)


def write(image: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def picture(image: Any) -> np.ndarray:
    """Encoded bytes or an RGB array as a panel; a black one where nothing decodes."""
    if isinstance(image, bytes):
        image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
