"""How well a face parser finds the regions: mean IoU."""

from pathlib import Path

import cv2
import torch

from models.parsing.portrait import PortraitParser, confusion, mean_iou
from models.regions import MAP_SIZE
from pipeline import images
from pipeline.errors import UserError


def measure(parser: PortraitParser, folder: Path) -> tuple[float, int]:
    """Mean IoU over the three regions and all pixels, and the number of images; `folder` holds .jpg and .png pairs.

    Raises: UserError(2) when a .jpg has no .png beside it.
    """
    counts, device = torch.zeros(3, 3, dtype=torch.long), next(parser.parameters()).device
    photos = images.Folder(folder, MAP_SIZE, (".jpg",))
    for file, photo in zip(photos.files, photos, strict=True):
        truth = cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        if truth is None:
            raise UserError(
                f"{file.with_suffix('.png')}: is no region map of {file.name}; expected a grey PNG of 0, 1 and 2", 2
            )
        regions = parser.parse(images.to_tensor(photo).to(device))[0].cpu().numpy()
        regions = cv2.resize(regions, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        counts += confusion(torch.from_numpy(truth), torch.from_numpy(regions))
    return mean_iou(counts), len(photos)
