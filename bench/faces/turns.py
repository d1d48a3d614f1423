"""Images turned in their pixels: how many come out upright, and what looking for them costs.

`python bench/faces/turns.py FOLDER...` measures up to MOST images of each folder by the shipped detector; else the
paintings. Each image with a face is aligned as it is and in the three other quarter turns, and once at 45 degrees.
Right is what comes out within 15 degrees of what the upright image gives. The cost is that of the stage's worker
(decoding and encoding included) on the upright images, compared with one look at them and one in the square.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from models.faces import upright
from models.faces.alignment import tilt
from models.faces.detector import Face, YuNet
from pipeline import profile, weights
from pipeline.runner.spec import Item
from pipeline.sources import decode
from stages.preprocess import align

MOST = 50  # images of a folder
SETTINGS = profile.load("portable").align


def one_look(rgb: np.ndarray, detector: YuNet, usable: Callable[..., bool]) -> tuple[list[Face], int]:
    """`upright_faces` of what is believed to stand upright."""
    return [face for face in detector.detect(rgb) if usable(face, *rgb.shape[1::-1])], 0


def at_45(rgb: np.ndarray) -> np.ndarray:
    """The image turned by 45 degrees counterclockwise about its middle, all of it inside, the corners black."""
    side = round(1.42 * max(rgb.shape[:2]))
    turn = cv2.getRotationMatrix2D((rgb.shape[1] / 2, rgb.shape[0] / 2), 45, 1.0)
    turn[:, 2] += (side - rgb.shape[1]) / 2, (side - rgb.shape[0]) / 2
    return cv2.warpAffine(rgb, turn, (side, side))


def accuracy(files: list[Path], detector: YuNet) -> tuple[str, str]:
    """How many of the turned images come out upright, and the worst at 45 degrees."""
    right, turned, leaning = 0, 0, []
    for file in files:
        rgb = decode.read(file.read_bytes())
        first = align.align_picture(rgb, detector, SETTINGS, keep=False)
        if first is None:
            continue
        for quarter in (1, 2, 3):
            other = align.align_picture(np.ascontiguousarray(np.rot90(rgb, quarter)), detector, SETTINGS, keep=False)
            turned += 1
            right += other is not None and off(tilt(other.quad) - tilt(first.quad) + 90 * quarter) < 15
        other = align.align_picture(at_45(rgb), detector, SETTINGS, keep=False)
        leaning.append(180.0 if other is None else off(tilt(other.quad) - tilt(first.quad) + 45))
    worst = " ".join(f"{value:.1f}" for value in np.quantile(leaning, (0.5, 0.9, 1.0)))
    return f"{right} of {turned}", f"{sum(value < 15 for value in leaning)} of {len(leaning)} ({worst})"


def off(angle: float) -> float:
    """Degrees, 0 to 180."""
    return abs((angle + 180) % 360 - 180)


def cost(files: list[Path], detector: YuNet) -> tuple[float, float]:
    """Processor seconds of the stage's worker with one look and with all: per image the least of two, in turns."""
    least, whole = [], []
    for file in files:
        item = Item(file.stem, {"source": file.read_bytes()}, file.name)

        def timed(item: Item = item) -> float:
            start = time.process_time()
            align._row(item, detector, SETTINGS, keep=True)
            return time.process_time() - start

        times = []
        for _ in range(2):
            with mock.patch.object(upright, "upright_faces", one_look), mock.patch.object(align, "TURNED", 360):
                times.append(timed())
            times.append(timed())
        least.append(min(times[::2]))
        whole.append(min(times[1::2]))
    return sum(least) / len(files), sum(whole) / len(files)


def main() -> None:
    """Print a table row per folder."""
    cv2.setNumThreads(1)
    print("| folder | images | quarter turns upright | at 45 degrees (median, 90 %, worst) | ms per image | added, % |")
    print("|---|---|---|---|---|---|")
    for folder in [Path(name) for name in sys.argv[1:]] or [weights.path("paintings")]:
        files = sorted(folder.glob("*.jpg"))[:: max(len(list(folder.glob("*.jpg"))) // MOST, 1)][:MOST]
        detector = YuNet(weights.path("yunet"))
        least, whole = cost(files, detector)
        added = 100 * (whole / least - 1)
        right, leaning = accuracy(files, detector)
        print(f"| {folder.name} | {len(files)} | {right} | {leaning} | {1000 * whole:.0f} | {added:.1f} |", flush=True)
    print("\nGoal: the looks at other turns add less than 10 %.")


if __name__ == "__main__":
    main()
