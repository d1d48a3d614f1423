"""How well a face parser finds the regions: mean IoU."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.parsing.portrait import PortraitParser, confusion, mean_iou
from models.regions import MAP_SIZE, REGION_COUNT, UNKNOWN
from pipeline import images
from pipeline.errors import UserError


def labelled(folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images [256, 256, 3] and region maps [H, W] of a folder's .jpg and .png pairs.

    Raises: UserError(2) when there are none, or when a .jpg has no map of 0, 1, 2 or UNKNOWN beside it.
    """
    photos = images.Folder(folder, MAP_SIZE, (".jpg",))
    for file, photo in zip(photos.files, photos, strict=True):
        truth = cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        if truth is None or not np.isin(truth, (*range(REGION_COUNT), UNKNOWN)).all():
            raise UserError(
                f"{file.with_suffix('.png')}: is no region map of {file.name}; expected a grey PNG of 0, 1 and 2", 2
            )
        yield photo, np.asarray(truth, np.uint8)


def measure(parser: PortraitParser, folder: Path) -> tuple[float, int]:
    """Mean IoU over the three regions and all pixels, and the number of images, of a folder as `labelled` takes it."""
    counts, device, count = torch.zeros(3, 3, dtype=torch.long), next(parser.parameters()).device, 0
    for photo, truth in labelled(folder):
        regions = parser.parse(images.to_tensor(photo).to(device))[0].cpu().numpy()
        regions = cv2.resize(regions, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        counts += confusion(torch.from_numpy(truth), torch.from_numpy(regions))
        count += 1
    return mean_iou(counts), count
