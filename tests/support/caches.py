"""Small caches of random content, for tests of the code that reads them."""

import dataclasses
import functools
import zlib
from pathlib import Path

import numpy as np

from pipeline import images, profile
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.runner.run import run_stage
from pipeline.runner.spec import StageSpec, Worker
from stages.preprocess import chain, shards

SPECS = {
    "images": {"image": Column("bytes"), "path": Column("label"), "quad": Column("f4", (4, 2)), "score": Column("f4")},
    "latents": {"latent": Column("f4", (4, 16)), "lpips": Column("f4")},
    "masks": {"region": Column("u1", (32, 32)), "parse": Column("u1", (32, 32)), "coverage": Column("f4", (3,))},
    "aladin": {
        "code": Column("f4", (3, 256)),
        "valid": Column("?", (3,)),
        "image_code": Column("f4", (256,)),
        "boxes": Column("i2", (3, 2, 4)),
        "iou": Column("f4", (3, 2)),
    },
}


def fill(ctx: Context, collection: str, count: int) -> None:
    """Write all four caches with `count` rows; the content of a row depends on its key."""
    folder = ctx.source(collection)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{collection}{i:04d}.jpg").write_text(str(i))
    for name, columns in SPECS.items():
        parents = {} if name == "images" else {"images": ("image",)}
        run_stage(
            StageSpec(name=name, output=name, columns=columns, open=_opener(name), parents=parents, batch=64),
            collection,
            ctx,
        )


def packed(base: Path, contents: int, styles: int) -> Context:
    """New caches of so many contents and styles in `base`, packed into shards."""
    ctx = Context(profile.load("tiny"), cache=base / "cache", content=base / "content", style=base / "style")
    fill(ctx, "content", contents)
    fill(ctx, "style", styles)
    shards.run(ctx)
    return ctx


def _opener(name: str):  # type: ignore[no-untyped-def]
    def opened(ctx: Context) -> Worker:
        return lambda items: [_row(name, item.key, item.path) for item in items]

    return opened


def _row(name: str, key: str, path: str) -> Row:
    rng = np.random.default_rng([*key.encode()])
    row: Row = {}
    for column, kind in SPECS[name].items():
        if column == "image":
            smooth = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            row[column] = images.encode(smooth, ".jpg")
        elif column == "path":
            row[column] = path
        elif column == "region":
            row[column] = rng.integers(0, 3, (4, 4)).repeat(8, 0).repeat(8, 1)
        elif column == "boxes":
            corner = rng.integers(0, 16, (3, 2, 2))
            row[column] = np.concatenate([corner, corner + 8], axis=2)
        else:
            row[column] = rng.random(kind.shape) * (255 if kind.dtype == "u1" else 1)
    return row


def fill_in_place_of_networks(ctx: Context, collection: str, count: int) -> None:
    """Write `count` source files and the four caches with the profile's real specs, but without its networks.

    The workers make constant rows.
    """
    folder = ctx.source(collection)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{collection}{i:05d}.jpg").write_text(str(i))
    for step in (step for name in chain.CACHED for step in chain.steps(name, collection, ctx)):
        run_stage(in_place_of_networks(step), collection, ctx)


def in_place_of_networks(step: StageSpec) -> StageSpec:
    """The step with a worker that makes constant rows."""
    return dataclasses.replace(step, open=functools.partial(_flat, step), batch=64)


def _flat(spec: StageSpec, ctx: Context) -> Worker:
    jpeg = images.encode(np.full((ctx.profile.align.source_size,) * 2 + (3,), 99, np.uint8), ".jpg")
    plain = {"bytes": jpeg, "text": "", "label": ""}

    def row(key: str) -> Row:
        level = zlib.crc32(key.encode()) % 3
        return {name: plain.get(c.dtype, np.full(c.shape, level)) for name, c in spec.columns.items()}

    return lambda items: [row(item.key) for item in items]
