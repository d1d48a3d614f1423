"""Images turned in their pixels: how many come out upright, and what looking for them costs.

`python bench/faces/turns.py FOLDER...` measures up to MOST images of each folder by the shipped detector; else the
paintings. Each image with a face is aligned as it is, in the three other quarter turns, and at 45 degrees: with black
corners, with its edges drawn out or mirrored there, before itself blurred, and without corners, cut to what is inside.
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


def at_45(rgb: np.ndarray, mode: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """The image turned by 45 degrees counterclockwise about its middle, all of it in a square that it just fits in."""
    height, width = rgb.shape[:2]
    side = int(np.ceil((width + height) * np.sqrt(0.5)))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 45, 1.0)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    return cv2.warpAffine(rgb, turn, (side, side), borderMode=mode)


def before_itself(rgb: np.ndarray) -> np.ndarray:
    """`at_45` before the image itself, enlarged and blurred."""
    turned, covered = at_45(rgb), at_45(np.full_like(rgb, 255)) > 127
    return np.where(covered, turned, cv2.GaussianBlur(cv2.resize(rgb, turned.shape[1::-1]), (0, 0), len(turned) / 25))


def inside(rgb: np.ndarray) -> np.ndarray:
    """The largest part of `at_45` without corners."""
    turned, half = at_45(rgb), min(rgb.shape[:2]) * np.sqrt(0.125)
    low, high = int(len(turned) / 2 - half) + 1, int(len(turned) / 2 + half) - 1
    return np.ascontiguousarray(turned[low:high, low:high])


LEANING = {
    "black": at_45,
    "drawn out": lambda rgb: at_45(rgb, cv2.BORDER_REPLICATE),
    "mirrored": lambda rgb: at_45(rgb, cv2.BORDER_REFLECT),
    "before itself": before_itself,
    "cut": inside,
}


def accuracy(files: list[Path], detector: YuNet) -> tuple[str, list[str]]:
    """How many of the turned images come out upright; how many at 45 degrees, their median, 90 % and worst."""
    right, turned, leaning = 0, 0, {name: [] for name in LEANING}
    for file in files:
        rgb = decode.read(file.read_bytes())
        first = align.align_picture(rgb, detector, SETTINGS, keep=False)
        if first is None:
            continue
        for quarter in (1, 2, 3):
            other = align.align_picture(np.ascontiguousarray(np.rot90(rgb, quarter)), detector, SETTINGS, keep=False)
            turned += 1
            right += other is not None and off(tilt(other.quad) - tilt(first.quad) + 90 * quarter) < 15
        for name, make in LEANING.items():
            other = align.align_picture(make(rgb), detector, SETTINGS, keep=False)
            leaning[name].append(180.0 if other is None else off(tilt(other.quad) - tilt(first.quad) + 45))
    told = []
    for found in leaning.values():
        worst = " ".join(f"{value:.1f}" for value in np.quantile(found, (0.5, 0.9, 1.0)))
        told.append(f"{sum(value < 15 for value in found)} of {len(found)} ({worst})")
    return f"{right} of {turned}", told


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
            with mock.patch.object(upright, "upright_faces", one_look), mock.patch.object(align, "FILLED", 360):
                times.append(timed())
            times.append(timed())
        least.append(min(times[::2]))
        whole.append(min(times[1::2]))
    return sum(least) / len(files), sum(whole) / len(files)


def main() -> None:
    """Print a table row per folder."""
    cv2.setNumThreads(1)
    columns = ["folder", "images", "ms per image", "added, %", "quarter turns upright"]
    columns += [f"at 45 degrees, {name} (median, 90 %, worst)" for name in LEANING]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for folder in [Path(name) for name in sys.argv[1:]] or [weights.path("paintings")]:
        files = sorted(folder.glob("*.jpg"))[:: max(len(list(folder.glob("*.jpg"))) // MOST, 1)][:MOST]
        detector = YuNet(weights.path("yunet"))
        least, whole = cost(files, detector)
        added = 100 * (whole / least - 1)
        right, leaning = accuracy(files, detector)
        told = [folder.name, str(len(files)), f"{1000 * whole:.0f}", f"{added:.1f}", right, *leaning]
        print(f"| {' | '.join(told)} |", flush=True)
    print("\nGoal: the looks at other turns add less than 10 %.")


if __name__ == "__main__":
    main()
