"""What an interactive program does: the prediction at once, then better ones until the user does something else.

`python examples/live.py me.jpg klimt.jpg OUT` writes each picture that would be shown.
"""

import sys
import time
from pathlib import Path

from PIL import Image

import hypernst

PATIENCE = 5.0  # seconds after which this user does something else


def main(portrait: str, style: str, folder: str, *, profile: str = "portable") -> None:
    """Write FOLDER/00.png, the prediction, and a picture for each step that was waited for."""
    studio = hypernst.load(profile, memory=256 << 20)
    me, art = studio.read(portrait), studio.read(style, style=True)
    Path(folder).mkdir(parents=True, exist_ok=True)
    studio.stylize(me, art, refine=0).save(Path(folder, "00.png"))
    start = time.monotonic()

    def shown(step: int, best: Image.Image) -> bool:
        best.save(Path(folder, f"{step:02}.png"))
        return time.monotonic() - start > PATIENCE

    try:
        studio.stylize(me, art, refine=10, on_step=shown)
    except hypernst.UserError as error:
        print(f"no refinement: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
