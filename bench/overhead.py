"""The overhead of a stage over its bare models (portable profile): reading, decoding, digests, parts and compaction.

The bare time is that of the stage's own worker on the same images, decoded before and held in memory. Decoding is also
shown separately. Times are processor times. Stage and worker run ROUNDS times in turn; the median of each counts.
"""

import functools
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from pipeline import images, profile
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, StageSpec, Worker
from stages.loaders import generator as networks
from stages.preprocess import aladin_codes, align, latents, masks

FACES, COUNT = 4, 240  # enough that several rows share the opening and compacting of a file
FEWER = {"align": 48, "aladin-codes": 8, "latents": 4}  # images, for stages that take longer per image
ROUNDS = 3


def make_portraits(folder: Path, ctx: Context) -> None:
    """Write COUNT images with a margin, of FACES faces that the generator made."""
    generator = networks.generator(ctx)
    with torch.inference_mode():
        w = generator.mean_latent()
        latents_w = generator.map(torch.randn(FACES, 512, generator=torch.Generator().manual_seed(0)))
        faces = [images.to_arrays(generator((w + 0.6 * (d - w))[None, None].expand(1, 18, -1)))[0] for d in latents_w]
    for i in range(COUNT):
        face = cv2.resize(faces[i % FACES], (480, 480), interpolation=cv2.INTER_CUBIC)
        data = images.encode(np.roll(cv2.copyMakeBorder(face, *[80] * 4, cv2.BORDER_REPLICATE), i, 1), ".jpg")
        (folder / f"face-{i:03d}.jpg").write_bytes(data)


def bare(stage: StageSpec, worker: Worker, ctx: Context) -> float:
    """The seconds of the worker alone."""
    if stage.parents:
        data: list[dict] = []
        for parent, columns in stage.parents.items():
            with Cache(ctx.file("content", parent)) as cache:
                keys = cache.keys()[: ctx.limit]
                rows = cache.rows(keys, columns)
            data = data or [{} for _ in keys]
            for d, row in zip(data, rows, strict=True):
                d.update({f"{parent}.{name}": value for name, value in row.items()})
        items = [Item(key, d) for key, d in zip(keys, data, strict=True)]
    else:
        items = [Item(p.stem, {"source": p.read_bytes()}, p.name) for p in sorted(ctx.content.iterdir())[: ctx.limit]]
    decode, images.decode = images.decode, functools.cache(images.decode)
    try:
        for item in items:  # the first pass decodes and warms up the models; align's decoding of files still counts
            worker([item])
        start = time.process_time()
        for i in range(0, len(items), stage.batch):
            worker(items[i : i + stage.batch])
        return time.process_time() - start
    finally:
        images.decode = decode


def main() -> None:
    """Print the time of each stage and of its worker, and the overhead."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "in").mkdir()
        ctx = Context(profile.load("portable"), cache=base / "cache", content=base / "in", style=base / "in")
        make_portraits(ctx.content, ctx)
        print("| stage | images | ms per image, whole | bare | overhead | of it decoding |")
        print("|---|---|---|---|---|---|")
        stages = (align.spec(ctx), masks.parse_spec(ctx), masks.spec(ctx), aladin_codes.spec(ctx), latents.spec(ctx))
        for stage in stages:
            if stage.name == "masks":  # no model: it groups the labels
                run_stage(stage, "content", ctx)
                continue
            few = replace(ctx, limit=FEWER.get(stage.name))
            worker = stage.open(ctx)
            alone, whole, decoding = [bare(stage, worker, few)], [], []
            for _ in range(ROUNDS):
                few.file("content", stage.output).unlink(missing_ok=True)
                count, seconds, part = _run(replace(stage, open=functools.partial(_give, worker)), few)
                whole.append(seconds)
                decoding.append(part)
                alone.append(bare(stage, worker, few))
            ms = [median(times) / count * 1e3 for times in (whole, alone, decoding)]
            print(
                f"| {stage.name} | {count} | {ms[0]:.1f} | {ms[1]:.1f} | {ms[0] / ms[1] - 1:.1%} | "
                f"{ms[2] / ms[1]:.1%} |",
                flush=True,
            )
            run_stage(stage, "content", replace(ctx, limit=None if stage.name == "align" else few.limit))
        print("\nGoal: an overhead of 5 % or less.")


def _run(stage: StageSpec, ctx: Context) -> tuple[int, float, float]:
    """Run the stage; return its rows, its seconds, and the seconds that `images.decode` took."""
    decode, spent = images.decode, 0.0

    def timed(data: bytes, size: int | None = None, halve: bool = False) -> np.ndarray:
        nonlocal spent
        begin = time.process_time()
        rgb = decode(data, size, halve)
        spent += time.process_time() - begin
        return rgb

    images.decode = timed
    try:
        start = time.process_time()
        count = run_stage(stage, "content", ctx).cached
        return count, time.process_time() - start, spent
    finally:
        images.decode = decode


def _give(worker: Worker, _: Context) -> Worker:
    return worker


if __name__ == "__main__":
    main()
