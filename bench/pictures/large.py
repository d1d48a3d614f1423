"""README's pictures at 1024 px: `python -m bench.pictures.large docs/large.jpg`.

Two faces of the generator, each in the style of a painting, refined, beside one another.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

import hypernst
from bench.pictures.paintings import painting
from pipeline import images
from pipeline.reports import sheets
from stages.studio.app import FACES

PAIRS = ((0, 436532), (2, 435882))  # a face's place among the studio's, and a painting's number
SIDE, GAP = 800, 8  # pixels of a face, and of the white between two
QUALITY = 86  # of the JPEG


def main(output: str) -> None:
    """Write the picture."""
    studio = hypernst.load(cache=None)
    faces, row = sorted(FACES.glob("*.jpg")), []
    for place, number in PAIRS:
        style = studio.read(painting(number).path, style=True)
        large = np.asarray(studio.stylize(studio.read(faces[place]), style, size=1024))
        row.append(cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    Path(output).write_bytes(images.encode(sheets.beside(row, GAP)[:-GAP, :-GAP], ".jpg", QUALITY, full_colour=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
