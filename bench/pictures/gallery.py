"""README's picture of stylised faces: `python -m bench.pictures.gallery docs/gallery.jpg`.

Faces of the generator, as they are and by their regions, then in the styles of paintings, refined; in the last column
hair, face and background each have their own. A painting is shown by its colours and its title, as no picture of others
is committed; the sheet of `make demo` shows the paintings themselves.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

import hypernst
from bench.pictures import cards
from bench.pictures.paintings import painting
from models.regions import REGIONS
from pipeline import images
from pipeline.reports import colours, sheets
from pipeline.sources import decode
from stages.studio.app import FACES

STYLES = (436532, 435882, 436658, 37788, 44858)
MIX = (0, 2, 1)  # which of them hair, face and background have in the last column
SIDE, GAP = 208, 6  # pixels of a face, and of the white between two
CARD = 250  # pixels of a card's height
QUALITY = 88  # of the JPEG


def main(output: str) -> None:
    """Write the picture."""
    studio = hypernst.load(cache=None)
    paintings = [painting(number) for number in STYLES]
    styles = [studio.read(one.path, style=True) for one in paintings]
    mixed = {region: styles[i] for region, i in zip(REGIONS, MIX, strict=True)}
    palettes = [cards.dominant(decode.read(one.path.read_bytes())) for one in paintings]
    rows = []
    for path in sorted(FACES.glob("*.jpg")):
        face = studio.read(path)
        row = [face.image, sheets.overlay(face.image, face.region)]
        row += [np.asarray(studio.stylize(face, style)) for style in (*styles, mixed)]
        rows.append([cv2.resize(cell, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for cell in row])
    legend = [[(colour, 1.0)] for colour in colours.REGIONS.values()]
    mix = [palettes[i] for i in MIX]
    named = [f"{region} {i + 1}" for region, i in zip(REGIONS, MIX, strict=True)]
    head = [
        cards.card([], "A generated face", "of nobody real", (SIDE, CARD)),
        cards.card(legend, "Its regions", "hair, face and background", (SIDE, CARD)),
        *(
            cards.card([palette], f"{number}  {one.title}", one.artist, (SIDE, CARD))
            for number, (one, palette) in enumerate(zip(paintings, palettes, strict=True), 1)
        ),
        cards.card(mix, "By region", ", ".join(named), (SIDE, CARD)),
    ]
    sheet = np.concatenate([sheets.beside(row, GAP) for row in (head, *rows)])[:-GAP, :-GAP]
    Path(output).write_bytes(images.encode(sheet, ".jpg", QUALITY, full_colour=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
