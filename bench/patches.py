"""Sampling windows inside regions: all positions at once by an integral image, against rejection sampling.

Both sample 8 windows of 64 px with a coverage of 0.7 in each region of head-shaped maps of 256 px; some maps have thin
hair. Rejection sampling gives up on a region after 2,000 tries.
"""

import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

from stages.preprocess.aladin_codes import sample_region_windows

SIDE, SIZE, COUNT, COVERAGE, TRIES, MAPS, REPEATS = 256, 64, 8, 0.7, 2000, 24, 5


def head(rng: np.random.Generator) -> np.ndarray:
    """A region map u8 [SIDE, SIDE]: an ellipse of face, hair around its upper half, background."""
    region = np.full((SIDE, SIDE), 2, np.uint8)
    centre = (int(rng.integers(108, 148)), int(rng.integers(128, 160)))
    face = np.array([rng.integers(48, 66), rng.integers(64, 86)])
    hair = face + rng.integers(12, 60, 2)
    cv2.ellipse(region, (centre[0], centre[1] - 16), [int(v) for v in hair], 0, 160, 380, 0, -1)
    cv2.ellipse(region, centre, [int(v) for v in face], 0, 0, 360, 1, -1)
    return region


def by_rejection(region: np.ndarray, seed: int) -> tuple[list[tuple[int, int]], int]:
    """The corners (x, y) of the sampled windows, and the number of regions given up."""
    rng = np.random.default_rng(seed)
    corners: list[tuple[int, int]] = []
    for label in range(3):
        mask = region == label
        target = len(corners) + COUNT
        for _ in range(TRIES):
            x, y = rng.integers(0, SIDE - SIZE + 1, 2)
            if mask[y : y + SIZE, x : x + SIZE].mean() >= COVERAGE:
                corners.append((x, y))
            if len(corners) == target:
                break
    return corners, -(-(3 * COUNT - len(corners)) // COUNT)


def main() -> None:
    """Print the mean and the median time over the maps."""
    rng = np.random.default_rng(0)
    at_once, rejection, given_up = [], [], 0
    for seed in range(MAPS):
        region = head(rng)
        at_once.append(_seconds(lambda: sample_region_windows(region, SIZE, COUNT, (COVERAGE,), seed)))  # noqa: B023
        rejection.append(_seconds(lambda: by_rejection(region, seed)))  # noqa: B023
        given_up += by_rejection(region, seed)[1]
    ratio = sum(rejection) / sum(at_once)
    print("| patch selection, per image | ms, mean | ms, median |\n|---|---|---|")
    for name, times in (("integral image", at_once), ("rejection sampling", rejection)):
        print(f"| {name} | {np.mean(times) * 1e3:.2f} | {median(times) * 1e3:.2f} |")
    print(
        f"\n{ratio:.0f} x as fast over all {MAPS} maps (goal: 20 x), "
        f"{median(np.divide(rejection, at_once)):.0f} x on the "
        f"median map; rejection sampling gave up on {given_up} of {3 * MAPS} regions."
    )


def _seconds(work: Callable[[], object]) -> float:
    """The least of REPEATS times, after one warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


if __name__ == "__main__":
    main()
