"""What ALADIN's head learns from: works in style groups, their crops, and the statistics of these, kept in a run."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from models.backbones.trunks import LAYOUTS, Trunk
from models.encoders.aladin import STATISTICS, Aladin
from pipeline import files, hashing, images, ours, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.evaluate.retrieval import SIDE

GRID = 3  # cells per side; crops come from different cells, so that they never overlap
CROPS = 6
PHOTOS = 150
NATIVE = 128  # px; an image upscaled from less than this teaches blur


@dataclass(frozen=True)
class Work:
    """One image to learn from. `weight` is how often it is sampled; upscaled images have less.

    `name` is its path below its collection; `group` names its style group: a sub-folder ("name/"), else itself.
    `content` is the digest of its file, which decides its place in the order and its crops, whatever its name.
    """

    path: Path
    name: str
    group: str
    weight: float
    content: str = ""


def trunk() -> Trunk:
    """The VGG16 of LPIPS; the same weights, so that they are fetched once."""
    return Trunk("vgg16", weights.tensors("lpips-vgg"))


def gather(data: Path) -> list[Work]:
    """The images to learn from, in a fixed mixed order.

    Images in a sub-folder of `data`/style are one style group; every other work is a group of its own. A table
    `<folder>.csv` beside a folder may give `native_crop_px`: an image upscaled from few pixels weighs less.
    Raises: UserError(2) when `data`/style holds no images.
    """
    works: list[Work] = []
    for folder, limit in ((data / "style", None), (data / "content", PHOTOS), (weights.path("paintings"), None)):
        native: dict[str, float] = {}
        table = folder.with_suffix(".csv")
        if table.exists():
            with table.open() as rows:
                native = {row["file"].rpartition("/")[2]: float(row["native_crop_px"]) for row in csv.DictReader(rows)}
        found = (p for p in folder.rglob("*") if p.suffix.lower() in images.SUFFIXES)
        paths = sorted(p for p in found if not any(map(ours.is_system, p.relative_to(folder).parts)))
        if limit is not None and len(paths) > limit:
            paths = paths[:: len(paths) // limit][:limit]
        for path in paths:
            side, name = native.get(path.name, SIDE), path.relative_to(folder).as_posix()
            if side >= NATIVE or folder.name == "content":
                above = name.rpartition("/")[0] if folder.name == "style" else ""
                group, content = f"{above}/" if above else f"{folder.name}/{name}", hashing.digest(path.read_bytes())
                works.append(Work(path, name, group, min(1.0, side / SIDE), content.hex()))
    if not any(work.path.is_relative_to(data / "style") for work in works):
        raise UserError(
            f"{data / 'style'}: holds no images to learn styles from; expected {', '.join(images.SUFFIXES)}", 2
        )
    return sorted(works, key=lambda work: (work.content, work.name))


def cut(rgb: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """Crops [CROPS, 3, size, size] from different cells of a 3 x 3 grid, 56 to 85 px of 256; half of them flipped."""
    cell = SIDE // GRID
    tensors: list[Tensor] = []
    for index in rng.choice(GRID**2, CROPS, replace=False):
        side = int(rng.integers(cell * 2 // 3, cell + 1))
        x, y = (int(c) * cell + int(rng.integers(0, cell - side + 1)) for c in (index % GRID, index // GRID))
        crop = resized(rgb[y : y + side, x : x + side], size)
        tensors.append(crop.flip(-1) if rng.random() < 0.5 else crop)
    return torch.cat(tensors)


def resized(rgb: NDArray[np.uint8], size: int) -> Tensor:
    """One image as a tensor [1, 3, size, size] in [-1, 1]."""
    return F.interpolate(images.to_tensor(rgb), (size, size), mode="bilinear", antialias=True)


def collect(ctx: Context, folder: Path, works: Sequence[Work], size: int, count: int) -> NDArray[np.float16]:
    """Statistics [count, CROPS, 8448] of every crop of the first `count` works, kept in `folder`.

    They are computed once; an interrupted run resumes. Crops come from different cells of the image, so that two of
    them share the style but no pixel.
    """
    recipe = json.dumps([[w.content for w in works], size, SIDE, CROPS, weights.sha256("lpips-vgg"), ctx.profile.seed])
    path = folder / f"statistics-{hashing.short_hash(recipe)}.npy"
    note = path.with_suffix(".done")
    shape = (len(works), CROPS, STATISTICS)
    done = int(note.read_text()) if note.exists() and path.exists() else 0
    stats = np.lib.format.open_memmap(path, "r+") if done else files.new_array(path, np.float16, shape)
    if done < count:
        net = Aladin(trunk=trunk(), size=size).to(ctx.device)
        for i in tqdm(range(done, count), initial=done, total=count, unit="work", mininterval=5):
            data = works[i].path.read_bytes()
            rng = np.random.default_rng(hashing.seed_from(str(ctx.profile.seed).encode(), data))
            crops = cut(images.decode(data, SIDE), size, rng)
            with torch.inference_mode():
                stats[i] = net.statistics(crops.to(ctx.device)).half().cpu().numpy()
            if i % 50 == 49 or i == count - 1:
                stats.flush()
                files.write_atomic(note, str(i + 1).encode())
    return stats[:count]


def pooled(stats: Tensor) -> Tensor:
    """Statistics [..., 8448] of the union of crops [..., K, 8448], as if they were one larger crop."""
    out: list[Tensor] = []
    start = 0
    for conv in LAYOUTS["vgg16"]:
        mean, std = (
            stats[..., start : start + conv.outputs],
            stats[..., start + conv.outputs : start + 2 * conv.outputs],
        )
        middle = mean.mean(-2, keepdim=True)
        out += [middle.squeeze(-2), (std.square() + (mean - middle).square()).mean(-2).sqrt()]
        start += 2 * conv.outputs
    return torch.cat(out, -1)
