"""Pictures in a row as a strip, a film, or a folder of files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import UserError
from pipeline.files import check_place, replacing, write_atomic

RATE = 16  # frames of a film per second


def check(output: Path, inputs: Iterable[Path] = ()) -> None:
    """Raises: UserError(2) when `write` could not write this: no .png, .webm or .gif, and no folder's name or place.

    Nor may it be one of the `inputs`.
    """
    if output.suffix.lower() not in ("", ".png", ".webm", ".gif"):
        raise UserError(f"{output}: expected a strip .png, a film .webm or .gif, or a folder's name without a dot", 2)
    check_place(output if output.suffix else output / "0000.png", inputs)


def write(
    output: Path,
    frames: Sequence[Image.Image],
    png: Callable[[np.ndarray], bytes],
    ours: Callable[[bytes], bool] = lambda data: False,
) -> None:
    """Write frames of one size: side by side (.png), as a film (.webm, .gif), or each into a folder.

    `png` encodes RGB u8 [H, W, 3]. Frames of a longer walk that lie in the folder go, if `ours` knows their file.
    Raises: UserError as `check`, or when the place cannot be written.
    """
    check(output)
    kind = output.suffix.lower()
    if kind == ".png":
        write_atomic(output, png(np.concatenate([np.asarray(frame) for frame in frames], 1)))
    elif kind == ".gif":
        with replacing(output) as place:
            frames[0].save(place, "GIF", save_all=True, append_images=frames[1:], duration=1000 // RATE, loop=0)
    elif kind == ".webm":
        with replacing(output) as place:
            _webm(place, frames)
    else:
        for number, frame in enumerate(frames):
            write_atomic(output / f"{number:04}.png", png(np.asarray(frame)))
        for place in output.glob("[0-9][0-9][0-9][0-9].png"):
            if int(place.stem) >= len(frames) and place.is_file() and ours(place.read_bytes()):
                place.unlink()


def _webm(place: Path, frames: Sequence[Image.Image]) -> None:
    """Write a VP8 film; OpenCV knows its kind by the name's end."""
    film = place.with_name(f"{place.name}.webm")
    try:
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"VP80"), RATE, frames[0].size)
        for frame in frames:
            writer.write(np.asarray(frame)[:, :, ::-1])
        writer.release()
        film.rename(place)
    except OSError as error:
        raise UserError(f"{film}: this OpenCV cannot write films; choose .gif") from error
    finally:
        film.unlink(missing_ok=True)
