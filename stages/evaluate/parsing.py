"""How well a face parser finds the regions: mean IoU."""

from pathlib import Path

import cv2
import torch

from models.parsing.portrait import PortraitParser, confusion, mean_iou
from models.regions import MAP_SIZE
from pipeline import images
from pipeline.errors import UserError


def measure(parser: PortraitParser, folder: Path) -> tuple[float, int]:
    """Mean IoU over the three regions, pixels pooled, and the number of pictures of a folder of .jpg and .png pairs."""
    counts = torch.zeros(3, 3, dtype=torch.long)
    photos = images.Folder(folder, MAP_SIZE, (".jpg",))
    for file, photo in zip(photos.files, photos, strict=True):
        truth = cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        if truth is None:
            raise UserError(
                f"{file.with_suffix('.png')}: no region map beside {file.name}; expected a grey PNG of 0, 1, 2", 2
            )
        found = parser.parse(images.to_tensor(photo))[0].cpu().numpy()
        found = cv2.resize(found, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        counts += confusion(torch.from_numpy(truth), torch.from_numpy(found))
    return mean_iou(counts), len(photos)
