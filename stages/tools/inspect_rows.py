"""Cache rows as images: the image, its regions, its windows, what it generates, its nearest styles."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from models.regions import REGIONS
from pipeline.reports import colours, sheets
from pipeline.reports.sheets import SIDE, Panel, heat, overlay, panel, write

REJECTED = 4  # windows shown of those that are not covered enough


def row(key: str, data: Mapping[str, Any]) -> np.ndarray:
    """One row as a strip of captioned panels, RGB u8 [LABEL + SIDE, W, 3].

    There is a panel for each of these that `data` holds: image, region, boxes, generated (else latent), nearest (else
    code). `image` is bytes or an RGB array; boxes are (x0, y0, x1, y1) in pixels of the region map.
    """
    image = panel(data["image"]) if "image" in data else np.full((SIDE, SIDE, 3), 128, np.uint8)
    panels: list[Panel] = [(key, image)]
    if "region" in data:
        region = np.asarray(data["region"])
        shares = "  ".join(f"{name} {np.mean(region == i):.0%}" for i, name in enumerate(REGIONS))
        panels.append((shares, overlay(image, region)))
    if "boxes" in data:
        panels += _windows(image, data)
    if "generated" in data:
        panels.append(("latent, generated", panel(data["generated"])))
    elif "latent" in data:
        panels.append(("latent", heat(np.asarray(data["latent"]))))
    if "nearest" not in data:
        panels += [(name, heat(np.asarray(data[name]))) for name in ("code", "codes") if name in data]
    panels += [(f"{likeness:.2f} {name}", panel(image)) for name, likeness, image in data.get("nearest", ())]
    return sheets.panels(panels)


def windows(
    image: np.ndarray,
    taken: Sequence[tuple[np.ndarray, float]],
    rejected: Sequence[tuple[np.ndarray, float]],
    colour: tuple[int, int, int],
    side: int,
) -> np.ndarray:
    """The image with windows of the `side` px map and their coverage: those taken in `colour`, the rejected in grey."""
    out = image // 2
    for boxes, ink in ((rejected, colours.REJECTED), (taken, colour)):
        for box, share in boxes:
            x0, y0, x1, y1 = (int(v) * SIDE // side for v in box)  # int: boxes are int16
            cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), ink, 1)
            write(out, f"{share:.2f}".lstrip("0"), (x0 + 2, y0 + 9), 0.28, ink)
    return out


def rejected_windows(mask: np.ndarray, size: int, below: float) -> list[tuple[np.ndarray, float]]:
    """Up to REJECTED windows that the mask covers in part, but less than `below`; the most covered first."""
    partial = []
    for y in range(0, mask.shape[0] - size + 1, max(1, size // 2)):
        for x in range(0, mask.shape[1] - size + 1, max(1, size // 2)):
            share = float(mask[y : y + size, x : x + size].mean())
            if 0 < share < below:
                partial.append((np.array([x, y, x + size, y + size]), share))
    partial.sort(key=lambda window: -window[1])
    return partial[:: max(1, -(-len(partial) // REJECTED))]


def _windows(image: np.ndarray, data: Mapping[str, Any]) -> list[Panel]:
    """One panel per region: the windows its code was averaged over, and some that were not covered enough."""
    boxes = np.asarray(data["boxes"])
    sizes = (boxes[..., 2] - boxes[..., 0]).ravel()
    region = np.asarray(data["region"]) if "region" in data else None
    iou = np.asarray(data["iou"], float) if "iou" in data else np.ones(boxes.shape[:2])
    limits = data.get("limits", {})
    panels = []
    for i, name in enumerate(REGIONS[: len(boxes)]):
        taken = [(box, share) for box, share in zip(boxes[i], iou[i], strict=True) if box[2] > box[0]]
        least = min((share for _, share in taken), default=limits.get("relaxed", 0.5))
        limit = max((v for k in ("coverage", "relaxed") if (v := limits.get(k, least)) <= least + 1e-6), default=least)
        rejected = (
            [] if region is None or not sizes.max() > 0 else rejected_windows(region == i, int(sizes.max()), limit)
        )
        caption = f"{name}: {len(taken)} of {limit:.2f} or more" if taken else f"{name}: none of {limit:.2f}"
        side = region.shape[0] if region is not None else 256
        panels.append((caption, windows(image, taken, rejected, colours.REGIONS[name], side)))
    return panels
