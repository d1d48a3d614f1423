"""One portrait in several styles: `python examples/one_portrait.py me.jpg OUT klimt.jpg hokusai.jpg`.

The portrait is read once; each further style costs one pass of the network, and one more for each step of refinement.
"""

import sys
from pathlib import Path

import hypernst


def main(portrait: str, folder: str, *styles: str, profile: str = "portable") -> None:
    """Write FOLDER/STYLE.png for each style."""
    studio = hypernst.load(profile, progress=lambda what, done, of: print(f"{what} ({done}/{of})", file=sys.stderr))
    me = studio.read(portrait)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for style in styles:
        path = Path(folder, Path(style).stem).with_suffix(".png")
        studio.stylize(me, style).save(path)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
