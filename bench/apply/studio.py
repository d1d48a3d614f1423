"""Processor seconds of a portrait and its styles through the facade: `python bench/apply/studio.py me.jpg A B ...`.

A portrait is read once; a style that was never seen is read and rendered; a style that was read is rendered alone.
"""

import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np

import hypernst


def clock(work: Callable[[], object]) -> tuple[float, float, object]:
    """Processor and wall seconds of one call, and what it returned."""
    start = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - start[0], time.perf_counter() - start[1], found


def main(portrait: str, *styles: str) -> None:
    """Print a table; checks that warm and cold pictures are the same."""
    rows = [("import and load", clock(lambda: hypernst.load(cache=None).stylist()))]
    with TemporaryDirectory() as cache:
        studio = hypernst.load(cache=cache)
        rows.append(
            ("portrait and first style, networks loaded", clock(lambda: studio.stylize(portrait, styles[0], refine=0)))
        )
        warm = {style: clock(lambda style=style: studio.stylize(portrait, style, refine=0)) for style in styles[1:]}
        rows += [(f"another style, never seen ({style})", times) for style, times in warm.items()]
        rows += [("the same again", clock(lambda: studio.stylize(portrait, styles[1], refine=0)))]
        rows += [("strength 0.5", clock(lambda: studio.stylize(portrait, styles[1], 0.5, refine=0)))]
        mixed = {"hair": styles[0], "face": styles[1], "background": styles[1]}
        rows += [("hair of another style that was read", clock(lambda: studio.stylize(portrait, mixed, refine=0)))]
        again = hypernst.load(cache=cache, memory=0)
        rows += [
            ("another process's first picture, rows kept", clock(lambda: again.stylize(portrait, styles[1], refine=0)))
        ]
        cold = hypernst.load(cache=None, memory=0).stylize(portrait, styles[1], refine=0)
        assert all(np.array_equal(found, cold) for found in (warm[styles[1]][2], rows[-1][1][2]))
    print("| what | processor s | wall s |\n|---|---|---|")
    for name, (processor, wall, _) in rows:
        print(f"| {name} | {processor:.2f} | {wall:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
