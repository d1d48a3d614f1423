"""The cost of reading in one process: the reader, a plain file-per-sample Dataset, and decoding the images alone.

All read the same 256 px samples in batches of 16. The bound decodes image and region map from memory and does nothing
else. Times are processor times, measured in turn, so that a busy machine slows all of them equally.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from pipeline import images
from pipeline.shards import writer as shards
from pipeline.shards.batches import collate
from pipeline.shards.indexed import Loader, Samples
from pipeline.shards.sample import decode, fields
from stages.preprocess import shards as shards_stage

COUNT, BATCH, ROUNDS = 320, 16, 7


class Files(Dataset):
    """A simple Dataset: five files per sample in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = sorted(p.name.removesuffix(".jpg") for p in folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> dict[str, Any]:
        base = self.folder / self.keys[i]
        return {
            "key": self.keys[i],
            "image": cv2.cvtColor(cv2.imread(f"{base}.jpg"), cv2.COLOR_BGR2RGB),
            "region": cv2.imread(f"{base}.region.png", cv2.IMREAD_UNCHANGED),
            "latent": np.load(f"{base}.latent.npy"),
            "codes": np.load(f"{base}.codes.npy"),
            "meta": json.loads(Path(f"{base}.json").read_text()),
        }


def sample(number: int) -> tuple[str, shards.Sample]:
    """A sample with the shapes of the portable profile; its image is as hard to compress as a photo."""
    rng = np.random.default_rng(number)
    image = (
        sum(
            cv2.resize(rng.normal(0, 26, (side, side, 3)), (256, 256), interpolation=cv2.INTER_CUBIC)
            for side in (4, 16, 64, 128)
        )
        + 128
    )
    region = cv2.resize(rng.integers(0, 3, (6, 6), np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST)
    key = f"k{number:05d}"
    meta = {"key": key, "boxes": rng.integers(0, 256, (3, 8, 4)).tolist(), "iou": rng.random((3, 8)).tolist()}
    return key, {
        "jpg": images.encode(image.clip(0, 255).astype(np.uint8), ".jpg", shards_stage.QUALITY, full_colour=True),
        "region.png": cv2.imencode(".png", region)[1].tobytes(),
        "latent.npy": shards.npy(rng.random((18, 512), np.float32)),
        "codes.npy": shards.npy(rng.random((4, 256), np.float32)),
        "json": json.dumps(meta).encode(),
    }


def main() -> None:
    """Print the samples per second of each reader, and their ratio to the bound."""
    cv2.setNumThreads(0)
    samples = [sample(i) for i in range(COUNT)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        for key, members in samples:
            for member, data in members.items():
                (folder / "files" / f"{key}.{member}").write_bytes(data)
        shards.write(folder, [("content", "train", samples)], 8_000_000, {})

        def bound() -> None:
            for _, members in samples:
                cv2.imdecode(np.frombuffer(members["jpg"], np.uint8), cv2.IMREAD_COLOR_RGB)
                cv2.imdecode(np.frombuffer(members["region.png"], np.uint8), cv2.IMREAD_UNCHANGED)

        def everything() -> None:
            for key, members in samples:
                decode(members, key)

        def whole() -> None:
            for start in range(0, COUNT, BATCH):
                collate((fields(members, key) for key, members in samples[start : start + BATCH]), BATCH)

        def drain(loader: Any) -> Callable[[], None]:
            return lambda: sum(1 for _ in (loader.epoch() if hasattr(loader, "epoch") else loader)) and None

        works = {
            "images decoded, nothing else (the bound)": bound,
            "whole samples decoded, from memory": everything,
            "whole samples decoded and batched, from memory": whole,
            "indexed reader": drain(Loader(Samples(folder, "content"), BATCH, 0)),
            "file-per-sample Dataset": drain(
                DataLoader(
                    Files(folder / "files"),
                    BATCH,
                    shuffle=True,
                    collate_fn=lambda batch: collate((s.items() for s in batch), len(batch)),
                )
            ),
        }
        times: dict[str, list[float]] = {n: [] for n in works}
        for _ in range(ROUNDS + 1):
            for n, work in works.items():
                start = time.process_time()
                work()
                times[n].append(time.process_time() - start)
    base = times["images decoded, nothing else (the bound)"][1:]  # the first round warms up
    print("| reading, one process | samples/s | of the bound |\n|---|---|---|")
    for n, seconds in times.items():
        share = median(b / t for b, t in zip(base, seconds[1:], strict=True))
        print(f"| {n} | {COUNT / median(seconds[1:]):.0f} | {share:.2f} |")
    print("\nGoals for the indexed reader: 0.85 of the bound or more, never slower than the Dataset.")


if __name__ == "__main__":
    main()
