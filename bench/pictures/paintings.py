"""The paintings in whose styles README's pictures are made: by their number in the package that holds them."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline import weights
from stages.preprocess import samples


@dataclass(frozen=True)
class Painting:
    """A painting's file, its title without what is in brackets or follows a colon, and its artist."""

    path: Path
    title: str
    artist: str


def painting(number: int) -> Painting:
    """A painting by its number. Raises: KeyError when there is none."""
    source = weights.path("paintings")
    entry = samples.paintings(source)[f"{number}.jpg"]
    title, artist = (re.split(r" ?[(:;]", entry[key])[0].strip() for key in ("title", "artistDisplayName"))
    return Painting(source / f"{number}.jpg", title, artist)
