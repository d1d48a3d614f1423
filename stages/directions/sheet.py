"""The sheet of Fig. 7: portraits edited along each direction, as the generator has them and in styles."""

from pathlib import Path

import numpy as np

from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.progress import Progress
from pipeline.reports import sheets
from stages.apply import recipe
from stages.apply.studio import Studio
from stages.loaders import directions as loader
from stages.portraits.portrait import cached

NAME = "edits.png"
STEPS = 2.0  # along each direction, either way
SHOWN = {"age": ("younger", "older"), "smile": ("serious", "smiling"), "pose": ("to the right", "to the left")}


def run(ctx: Context, *, contents: int = 3, styles: int = 3, output: Path | None = None) -> int:
    """Write the sheet of the first `contents` and `styles` of CACHE to `output`, by default RUN/edits.png.

    A row has a portrait as it is and at STEPS along each direction, first without a style, then in each style.
    Raises: UserError(2) when the profile has no directions, or CACHE no portraits.
    """
    edits: list[tuple[str, dict[str, float]]] = [("as it is", {})]
    for name, (less, more) in SHOWN.items():
        if name in loader.names(ctx):
            edits += [(less, {name: -STEPS}), (more, {name: STEPS})]
    if len(edits) == 1:
        raise UserError(f"profile {ctx.profile.name} has no editing.directions; make some by `hypernst directions`", 2)
    studio = Studio(ctx)
    faces, artworks = list(cached(ctx, "content", contents)), list(cached(ctx, "style", styles))
    progress = Progress("edits", len(faces) * (len(artworks) + 1) * len(edits))
    rows: list[list[np.ndarray]] = []
    for face in faces:
        edited = [studio.edit(face, steps) for _, steps in edits]
        inversions = [studio.stylist().invert(portrait) for portrait in edited]
        progress.add(len(edits))
        rows.append([face.image, *inversions])
        for artwork in artworks:
            look = studio.look(artwork)
            row = [artwork.image]
            for portrait in edited:
                row.append(np.asarray(studio.render(portrait, look)))
                progress.add(1)
            rows.append(row)
    progress.close()
    place = output or ctx.run / NAME
    sheet = images.encode(sheets.grid(rows, ["photo, styles", *(name for name, _ in edits)]))
    write_atomic(place, recipe.mark(sheet, None))
    print(place)
    return 0
