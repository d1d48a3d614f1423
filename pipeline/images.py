"""Images as files, arrays and tensors. Arrays are RGB u8 [H, W, 3]; tensors are float32 [N, 3, H, W] in [-1, 1]."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline import hashing, ours
from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

END = 1 << 15  # bytes of either end of a file by which it is recognised
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_HALF = cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB  # the first constant is the bare flag: "grey" has no bit


def decode(data: bytes, size: int | None = None, halve: bool = False) -> np.ndarray:
    """Decode an encoded image to RGB u8 [H, W, 3], resized to [size, size, 3] by area averaging when `size` is given.

    With `halve` an image of at least twice `size` is first halved by its codec: faster, and nearly the same pixels.
    Raises: UserError when the bytes are no image, or the image has more pixels than OpenCV decodes.
    """
    encoded = np.frombuffer(data, np.uint8)
    try:
        rgb = cv2.imdecode(encoded, _HALF if halve else cv2.IMREAD_COLOR_RGB) if data else None
        if rgb is not None and halve and size is not None and min(rgb.shape[:2]) < size:
            rgb = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        what = "a damaged image, or one of more than 40 million pixels"
        raise UserError(f"{len(data)} bytes are {what}; save it again, or smaller") from None
    if rgb is None:
        raise UserError(f"{len(data)} bytes are not an image; expected an encoded JPEG, PNG or WebP")
    if size is not None and rgb.shape[:2] != (size, size):
        shrink = min(rgb.shape[:2]) >= size
        rgb = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    return rgb


def encode(rgb: np.ndarray, suffix: str = ".png", quality: int = 95, *, full_colour: bool = False) -> bytes:
    """Encode RGB u8 [H, W, 3] as a file of this `suffix`.

    For JPEG, `quality` is 1 to 100, and `full_colour` keeps the colours' resolution (4:4:4), which is halved otherwise.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    if options and full_colour:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(suffix, rgb[:, :, ::-1], options)[1].tobytes()


class Folder:
    """All images under a folder with one of the `suffixes`, sorted by path, but nothing hidden or of the system.

    Item i is decoded when it is read: RGB u8 [size, size, 3].
    Raises: UserError(2) when there is none; UserError when one cannot be decoded.
    """

    def __init__(self, folder: Path, size: int, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        candidates = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes)
        self.files = sorted(p for p in candidates if not any(map(ours.is_system, p.relative_to(folder).parts)))
        self.size = size
        if not self.files:
            raise UserError(f"{folder} holds no images; expected files that end in {', '.join(suffixes)}", 2)

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> str:
        """How many images there are and what they hold, in their order, whatever their names: `8 images 1f2e3d4c5b6a`.

        Of a large file only both ends and the size count, as a data set may be larger than a day's reading.
        """
        return f"{len(self)} images {hashing.digest_all(map(_ends, self.files)).hex()[:12]}"

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            return decode(self.files[index].read_bytes(), self.size)
        except UserError as fault:
            raise UserError(f"{self.files[index]}: {fault}") from fault


def _ends(path: Path) -> bytes:
    """The size of a file and its first and last bytes."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        parts = [b"%d " % size]
        for start in (0, max(END, size - END)):
            file.seek(start)
            parts.append(file.read(END))
    return b"".join(parts)


def to_tensor(rgb: np.ndarray) -> "Tensor":
    """RGB u8 [N, H, W, 3] or [H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    import torch  # only here: encoding and decoding do not need torch, and importing it takes seconds

    batch = rgb[None] if rgb.ndim == 3 else rgb
    return torch.from_numpy(np.array(batch, order="C")).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_arrays(x: "Tensor") -> np.ndarray:
    """float32 [N, 3, H, W] in [-1, 1] -> RGB u8 [N, H, W, 3], rounded and clipped."""
    values = x.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return values.byte().permute(0, 2, 3, 1).cpu().numpy()
