"""Pictures of cache rows as people look at them: the image, its regions, its windows, what it generates, its kin."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

SIDE = 192  # pixels of a panel
LABEL = 18  # of the caption above it
REJECTED = 4  # windows shown of those that were not taken
NAMES = ("hair", "face", "background")
COLOURS = {0: (230, 160, 40), 1: (70, 190, 90), 2: (70, 110, 230), 255: (90, 90, 90)}  # as NAMES, then unknown
RED = (220, 40, 40)

Panel = tuple[str, np.ndarray]


def row(key: str, data: Mapping[str, Any]) -> np.ndarray:
    """One row as a strip of captioned panels, RGB u8 [LABEL + SIDE, W, 3].

    There are panels for each of image, region, boxes, generated or else latent, nearest or else code, that `data`
    holds. `image` is bytes or an RGB array; boxes are (x0, y0, x1, y1) in pixels of the region map.
    """
    image = _picture(data["image"]) if "image" in data else np.full((SIDE, SIDE, 3), 128, np.uint8)
    panels: list[Panel] = [(key, image)]
    if "region" in data:
        region = np.asarray(data["region"])
        shares = "  ".join(f"{name} {np.mean(region == i):.0%}" for i, name in enumerate(NAMES))
        panels.append((shares, overlay(image, region)))
    if "boxes" in data:
        panels += _windows(image, data)
    if "generated" in data:
        panels.append(("latent, generated", _picture(data["generated"])))
    elif "latent" in data:
        panels.append(("latent", heat(np.asarray(data["latent"]))))
    if "nearest" not in data:
        panels += [(name, heat(np.asarray(data[name]))) for name in ("code", "codes") if name in data]
    panels += [(f"{likeness:.2f} {name}", _picture(image)) for name, likeness, image in data.get("nearest", ())]
    return np.concatenate([_captioned(*panel) for panel in panels], axis=1)


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


def windows(image: np.ndarray, taken: Sequence[tuple[np.ndarray, float]], rejected: Sequence[tuple[np.ndarray, float]],
            colour: tuple[int, int, int], side: int) -> np.ndarray:
    """The image with windows of the `side` px map and the coverage of each: those taken in `colour`, others in red."""
    out = image // 2
    for found, ink in ((rejected, RED), (taken, colour)):
        for box, share in found:
            x0, y0, x1, y1 = (int(v) * SIDE // side for v in box)  # int: boxes are int16
            cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), ink, 1)
            _write(out, f"{share:.2f}".lstrip("0"), (x0 + 2, y0 + 9), 0.28, ink)
    return out


def rejected_windows(mask: np.ndarray, size: int, below: float) -> list[tuple[np.ndarray, float]]:
    """Up to REJECTED windows of the mask that it covers in part, but less than `below`; from much to little covered."""
    found = []
    for y in range(0, mask.shape[0] - size + 1, max(1, size // 2)):
        for x in range(0, mask.shape[1] - size + 1, max(1, size // 2)):
            share = float(mask[y:y + size, x:x + size].mean())
            if 0 < share < below:
                found.append((np.array([x, y, x + size, y + size]), share))
    found.sort(key=lambda window: -window[1])
    return found[::max(1, -(-len(found) // REJECTED))]


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers [L,D] as grey levels, black the least and white the most of them."""
    flat = values.reshape(values.shape[0], -1).astype(np.float32)
    low, high = np.nanmin(flat), np.nanmax(flat)
    grey = np.nan_to_num((flat - low) / (high - low or 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)


def png(rgb: np.ndarray) -> bytes:
    """RGB u8 as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def _windows(image: np.ndarray, data: Mapping[str, Any]) -> list[Panel]:
    """A panel a region: the windows its code was averaged over, and some that were not covered enough."""
    boxes = np.asarray(data["boxes"])
    sizes = (boxes[..., 2] - boxes[..., 0]).ravel()
    region = np.asarray(data["region"]) if "region" in data else None
    iou = np.asarray(data["iou"], float) if "iou" in data else np.ones(boxes.shape[:2])
    limits = data.get("limits", {})
    panels = []
    for i, name in enumerate(NAMES[:len(boxes)]):
        taken = [(box, share) for box, share in zip(boxes[i], iou[i], strict=True) if box[2] > box[0]]
        least = min((share for _, share in taken), default=limits.get("relaxed", 0.5))
        limit = max((v for k in ("coverage", "relaxed") if (v := limits.get(k, least)) <= least + 1e-6), default=least)
        rejected = [] if region is None or not sizes.max() > 0 else \
            rejected_windows(region == i, int(sizes.max()), limit)
        caption = f"{name}: {len(taken)} of {limit:.2f} or more" if taken else f"{name}: none of {limit:.2f}"
        side = region.shape[0] if region is not None else 256
        panels.append((caption, windows(image, taken, rejected, COLOURS[i], side)))
    return panels


def _captioned(caption: str, picture: np.ndarray) -> np.ndarray:
    label = np.full((LABEL, picture.shape[1], 3), 255, np.uint8)
    _write(label, caption[:34], (3, 12), 0.36 if len(caption) < 28 else 0.31, (0, 0, 0))
    return np.pad(np.concatenate([label, picture]), ((0, 2), (0, 2), (0, 0)), constant_values=255)


def _write(image: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _picture(image: Any) -> np.ndarray:
    """Encoded bytes or an RGB array as a panel; a black one where nothing decodes."""
    if isinstance(image, bytes):
        image = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        return np.zeros((SIDE, SIDE, 3), np.uint8)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
