"""Pictures in a row as a strip, a film, or a folder of files."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import UserError, printable
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
        write_atomic(output, encoded(kind, frames, png))
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


def encoded(kind: str, frames: Sequence[Image.Image], png: Callable[[np.ndarray], bytes]) -> bytes:
    """What `write` makes of frames in a file that ends in `kind`. Raises: UserError when there is no room for it."""
    if kind == ".png":
        return png(np.concatenate([np.asarray(frame) for frame in frames], 1))
    try:
        with TemporaryDirectory() as folder:
            place = Path(folder) / f"walk{kind}"
            write(place, frames, png)
            return place.read_bytes()
    except OSError as error:  # of the folder itself
        why = printable(" ".join((error.strerror or str(error)).split()))
        raise UserError(f"no temporary folder ({why}); free some space, or set TMPDIR to a folder with some") from error


def _webm(place: Path, frames: Sequence[Image.Image]) -> None:
    """Write a VP8 film; OpenCV knows its kind by the name's end. What it could not write, it does not say."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    place.touch()
    film = place.with_name(f"{place.name}.webm")
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    try:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"VP80"), RATE, frames[0].size)
        if not writer.isOpened():
            raise UserError(f"{place}: this OpenCV cannot write films; choose .gif")
        for frame in frames:
            writer.write(np.asarray(frame)[:, :, ::-1])
        writer.release()
        if (whole := count(film)) < len(frames):
            with film.open("ab", buffering=0) as file:
                file.write(bytes(1 << 20))  # here the system says why
            raise UserError(
                f"{place}: only {whole} of {len(frames)} frames could be written; run again, or choose .gif"
            )
        film.replace(place)
    finally:
        logging.setLogLevel(level)
        film.unlink(missing_ok=True)


def count(film: Path) -> int:
    """The number of frames of a film that can be shown."""
    opened = cv2.VideoCapture(str(film))
    return next(number for number in itertools.count() if not opened.grab())
