"""Pictures of cache rows as people look at them: the image, its regions laid over it, its windows, its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

SIDE = 192  # pixels of a panel
LABEL = 18  # of the caption above a row
COLOURS = {0: (230, 160, 40), 1: (70, 190, 90), 2: (70, 110, 230), 255: (90, 90, 90)}  # hair, face, background, unknown


def row(key: str, data: Mapping[str, Any]) -> np.ndarray:
    """One row as a strip of panels, RGB u8 [LABEL + SIDE, W, 3].

    There is a panel for each of image, region, boxes, latent and code (or codes) that `data` holds.
    `image` is bytes or an RGB array; boxes are (x0, y0, x1, y1) in pixels of the region map.
    """
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    image = _resize(_decode(data["image"])) if "image" in data else grey
    panels = [image] if "image" in data else []
    if "region" in data:
        panels.append(overlay(image, data["region"]))
    if "boxes" in data:
        side = data["region"].shape[0] if "region" in data else 256
        panels.append(windows(image, np.asarray(data["boxes"]), side))
    panels += [heat(np.asarray(data[name])) for name in ("latent", "code", "codes") if name in data]
    strip = np.concatenate(panels or [grey], axis=1)
    label = np.full((LABEL, strip.shape[1], 3), 255, np.uint8)
    cv2.putText(label, key, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([label, strip])


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


def windows(image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """The image with each region's windows, boxes [R,P,4], in the region's colour."""
    out = image.copy()
    for region, found in enumerate(boxes):
        for box in found:
            x0, y0, x1, y1 = (int(v) * SIDE // side for v in box)  # int: boxes are int16
            if x1 > x0:
                cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), COLOURS[region], 1)
    return out


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers [L,D] as grey levels, black the least and white the most of them."""
    flat = values.reshape(values.shape[0], -1).astype(np.float32)
    low, high = np.nanmin(flat), np.nanmax(flat)
    grey = np.nan_to_num((flat - low) / (high - low or 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)


def png(rgb: np.ndarray) -> bytes:
    """RGB u8 as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _decode(image: Any) -> np.ndarray:
    if not isinstance(image, bytes):
        return image
    bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    return np.zeros((SIDE, SIDE, 3), np.uint8) if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _resize(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
