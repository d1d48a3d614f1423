"""Hair, face and background in styles of their own: `python examples/regions_and_mixes.py me.jpg OUT.png a.jpg b.jpg`.

The hair takes the first style, the face three parts of the first and one of the second at most of its strength, and the
background the second. Pictures may be paths, PIL images or arrays.
"""

import sys

import numpy as np
from PIL import Image

import hypernst


def main(portrait: str, output: str, first: str, second: str, *, profile: str = "portable") -> None:
    """Write the picture, beside the one without a style."""
    studio = hypernst.load(profile, cache=None)  # nothing is left on the disk
    me = studio.read(Image.open(portrait))
    a, b = (studio.read(Image.open(path), style=True) for path in (first, second))
    style = {"hair": a, "face": [(a, 3), (b, 1)], "background": b}
    mixed = studio.stylize(me, style, strength={"face": 0.8})
    plain = studio.stylize(me, a, strength=0, refine=0)
    Image.fromarray(np.concatenate([np.asarray(plain), np.asarray(mixed)], 1)).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
