"""Style codes: the ALADIN code of each region, averaged over windows inside it, and that of the whole image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from models import windows
from models.regions import CODE_SIZE, MAP_SIZE, REGION_COUNT
from pipeline import weights
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.hashing import seed_from
from pipeline.runner.run import run_collections
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.loaders.style_encoder import TRUNK, check_kind, network
from stages.preprocess.producers import PRODUCERS

if TYPE_CHECKING:
    import torch


def spec(ctx: Context) -> StageSpec:
    """The style code stage (paper section 3.2, the mean inside equation 1).

    code: unit length; where valid is false (no window of the region is covered enough) the whole image's.
    boxes: x0, y0, x1, y1 on the region map, -1 where not valid. iou: each window's coverage by its region.
    """
    section = ctx.profile.aladin
    check_kind(ctx)
    trunk = [TRUNK] if section.kind == "imagenet" else []
    names = [section.weights, *trunk] if section.weights else []
    return StageSpec(
        name="aladin-codes",
        output="aladin",
        parents={"images": ("image",), "masks": ("region",)},
        producers=PRODUCERS,
        columns={
            "code": Column("f4", (REGION_COUNT, CODE_SIZE)),
            "valid": Column("bool", (REGION_COUNT,)),
            "image_code": Column("f4", (CODE_SIZE,)),
            "boxes": Column("i2", (REGION_COUNT, section.patches, 4)),
            "iou": Column("f4", (REGION_COUNT, section.patches)),
        },
        params=ctx.profile.section_dict("aladin") | {"align_size": ctx.profile.align.size, "seed": ctx.profile.seed},
        weights={name: weights.sha256(name) for name in names},
        version=2,  # 2: windows are sampled by the aligned image, not by the key
        batch=8,
        open=open_worker,
    )


def run(ctx: Context) -> int:
    """Embed the style of both collections."""
    return run_collections(spec(ctx), ctx)


def open_worker(ctx: Context) -> Worker:
    """The worker that embeds aligned images, one at a time: the other rows of a batch would change the last bits."""
    import torch

    from pipeline import images

    section = ctx.profile.aladin
    net = network(ctx)
    side = section.patch * MAP_SIZE // ctx.profile.align.size

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:
            image = images.to_tensor(images.decode(item["images.image"])).to(ctx.device)
            thresholds = (section.coverage, section.relaxed)
            # by what the windows are cut from: the same in the cache and in `stylize`, under any name
            seed = seed_from(str(ctx.profile.seed).encode(), item["images.image"])
            boxes, iou = sample_region_windows(item["masks.region"], side, section.patches, thresholds, seed)
            valid = boxes[:, 0, 0] >= 0
            with torch.inference_mode():
                whole = net(image, section.whole_size)[0].cpu().numpy()
                code = np.tile(whole, (REGION_COUNT, 1))
                for region in np.flatnonzero(valid):
                    code[region] = net(crops(image, boxes[region], net.size)).mean(0).cpu().numpy()
            code /= np.linalg.norm(code, axis=1, keepdims=True).clip(1e-8)
            rows.append({"code": code, "valid": valid, "image_code": whole, "boxes": boxes, "iou": iou})
        return rows

    return work


def sample_region_windows(
    region: np.ndarray, side: int, count: int, thresholds: tuple[float, ...], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sample `count` windows per region of the map [H, W]: boxes i16 [3, count, 4], -1 if missing, and coverage f32."""
    boxes = np.full((REGION_COUNT, count, 4), -1, np.int16)
    iou = np.zeros((REGION_COUNT, count), np.float32)
    for index in range(REGION_COUNT):
        # one random generator per region, so that the map of one region never moves another's windows
        sampled = windows.sample_windows(region == index, side, count, thresholds, np.random.default_rng([seed, index]))
        if sampled is not None:
            boxes[index], iou[index] = sampled
    return boxes, iou


def crops(image: "torch.Tensor", boxes: np.ndarray, size: int) -> "torch.Tensor":
    """Crops [P, 3, size, size] of an image [1, 3, H, W] of any resolution, at boxes [P, 4] on the region map."""
    import torch
    from torch.nn import functional as F

    scale = image.shape[-1] / MAP_SIZE
    pieces = []
    for box in boxes:
        x0, y0, x1, y1 = (round(int(v) * scale) for v in box)
        crop = image[..., y0:y1, x0:x1]
        pieces.append(crop if x1 - x0 == size else F.interpolate(crop, (size, size), mode="bilinear", antialias=True))
    return torch.cat(pieces)
