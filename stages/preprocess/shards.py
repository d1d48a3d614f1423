"""Shards: joins the rows that the caches hold for each key, and packs them for training."""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from pipeline import SCHEMA, __version__, libraries
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.files import read_plain, sweep
from pipeline.locks import lock, lock_if_writable
from pipeline.progress import Progress, say
from pipeline.shards import index, writer
from stages.preprocess import compatibility
from stages.preprocess.producers import PRODUCERS

PARENTS = ("images", "latents", "masks", "aladin")
PACKED = {"image", "region", "parse", "latent", "code", "image_code"}  # the other columns go into .json
VERSION = 2
# Discriminators take a shard's images for real ones: none may have traces that renderings lack. At this quality with
# colours at full resolution, portraits keep 53 dB or more and pure noise keeps 47.
QUALITY = 99


def run(ctx: Context, collections: tuple[str, ...] = COLLECTIONS) -> int:
    """Bring shards/ up to date with the caches. When nothing has changed, only digests are compared.

    Raises: UserError(2) when a cache is missing, or when the collections' codes are of two encoders.
    """
    with lock_if_writable(ctx.cache, "shards") as unwritable:
        keys, rejected, provenance = _survey(ctx, collections)
        current = index.is_current(ctx.shards, provenance)
        if not current:
            if unwritable:
                raise unwritable
            sweep(ctx.shards)
            _pack(ctx, keys, provenance)
    for name in collections:
        say(
            f"shards {name}: {len(keys[name]) + rejected[name]} images = {len(keys[name])} packed + {rejected[name]} "
            f"rejected earlier ({0 if current else len(keys[name])} packed now)"
        )
    return 0


def repack(ctx: Context, names: set[str]) -> None:
    """Pack only the shards `names` of the index again; all of them if the caches have changed since it was written.

    Raises: UserError when `run` does.
    """
    with lock(ctx.cache, "shards"):
        folder, path = ctx.shards, ctx.shards / "index.json"
        sound = path.exists()
        if sound:
            provenance, listed = index.parse_index(read_plain(path), str(folder))
            wanted = json.loads(json.dumps(_survey(ctx, COLLECTIONS)[2]))
            sound = index.same(provenance, wanted)
        for shard in (s for s in listed if s.name in names) if sound else ():
            progress = Progress(f"shards {shard.name}", shard.samples)
            with ExitStack() as stack:
                caches = {p: stack.enter_context(Cache(ctx.file(shard.collection, p))) for p in PARENTS}
                samples = _samples(ctx, shard.collection, shard.split, caches, shard.keys, progress)
                sound = writer.refill(folder, shard, samples) and sound
        if not sound:
            writer.drop_index(folder)
    if not sound:
        run(ctx)


def is_current(ctx: Context) -> bool:
    """Whether the shards are what the caches would be packed into."""
    return index.is_current(ctx.shards, _survey(ctx, COLLECTIONS)[2])


def plan(ctx: Context, collections: tuple[str, ...] = COLLECTIONS) -> tuple[int, str]:
    """How many samples the caches make, and what made the shards stale; "" when these are up to date."""
    from pipeline.runner.recipe import difference

    keys, _, provenance = _survey(ctx, collections)
    wanted = json.loads(json.dumps(provenance))
    count = sum(map(len, keys.values()))
    if index.is_current(ctx.shards, wanted):
        return count, ""
    try:
        return count, difference({**index.read_index(ctx.shards)[0], **index.told(wanted)}, wanted)
    except UserError as fault:
        return count, str(fault)


def _survey(ctx: Context, collections: tuple[str, ...]) -> tuple[dict[str, list[str]], dict[str, int], dict[str, Any]]:
    """Per collection the keys to pack and how many images are left out; the provenance that the shards should have."""
    keys, parents, rejected = {}, {}, {}
    for name in collections:
        keys[name], digests, rejected[name] = _join(name, ctx)
        parents.update(digests)
    return keys, rejected, _provenance(ctx, parents, keys)


def _join(collection: str, ctx: Context) -> tuple[list[str], dict[str, str], int]:
    """Keys that all caches have, each cache's digest, and how many images a later cache lacks."""
    shared: set[str] | None = None
    digests = {}
    images = 0
    for name in PARENTS:
        path = ctx.file(collection, name)
        if not path.exists():
            raise UserError(
                f"{path}: is missing, but shards are made from it; run `hypernst {PRODUCERS[name]}` first", 2
            )
        with Cache(path) as cache:
            keys = set(cache.keys())
            digests[f"{collection}/{name}"] = cache.rows_digest()
            if name == "latents":
                compatibility.refuse_others(ctx, cache.provenance, path)
        images = images or len(keys)
        shared = keys if shared is None else shared & keys
    chosen = sorted(shared or ())[: ctx.limit]
    return chosen, digests, images - len(shared or ())


def _provenance(ctx: Context, parents: dict[str, str], keys: dict[str, list[str]]) -> dict[str, Any]:
    align = ctx.profile.align
    with Cache(ctx.file(next(iter(keys)), "latents")) as cache:
        made = compatibility.made_with(cache.provenance)
    params = {**ctx.profile.section_dict("shards"), "size": align.size, "jpeg_quality": QUALITY}
    return {
        "stage": "shards",
        "version": VERSION,
        "schema": SCHEMA,
        "params": params,
        "parents": parents,
        "encoder": compatibility.one_encoder(ctx),
        "latents": made,
        "samples": {name: len(k) for name, k in keys.items()},
        "program": __version__,
        "profile": ctx.profile.name,
        "libraries": libraries(),
    }


def _pack(ctx: Context, keys: dict[str, list[str]], provenance: dict[str, Any]) -> None:
    config = ctx.profile.shards
    progress = Progress("shards", sum(map(len, keys.values())))
    with ExitStack() as stack:
        groups = []
        for collection, all_keys in keys.items():
            caches = {name: stack.enter_context(Cache(ctx.file(collection, name))) for name in PARENTS}
            for split in writer.SPLITS:
                chosen = writer.shuffled(k for k in all_keys if writer.split_of(k, config.test_fraction) == split)
                groups.append((collection, split, _samples(ctx, collection, split, caches, chosen, progress)))
        writer.write(ctx.shards, groups, int(config.max_mb * 1e6), provenance)
    progress.close()


def _samples(
    ctx: Context, collection: str, split: str, caches: dict[str, Cache], keys: list[str], progress: Progress
) -> Iterator[tuple[str, writer.Sample]]:
    for key in keys:
        row: dict[str, Any] = {}
        for cache in caches.values():
            row.update(cache.rows([key], [name for name in cache.columns if name != "parse"])[0])
        meta = {"key": key, "collection": collection, "split": split}
        meta |= {name: _plain(value) for name, value in row.items() if name not in PACKED}
        codes = np.concatenate([row["code"], row["image_code"][None]]).astype("<f4")
        yield (
            key,
            {
                "jpg": _jpeg(row["image"], ctx.profile.align.size),
                "region.png": _png(row["region"]),
                "latent.npy": writer.npy(row["latent"].astype("<f4")),
                "codes.npy": writer.npy(codes),
                "json": json.dumps(meta, sort_keys=True, ensure_ascii=False).encode(),
            },
        )
        progress.add(1)


def _jpeg(data: bytes, size: int) -> bytes:
    """The image as a nearly lossless JPEG of `size` px; a JPEG of that size is kept as it is."""
    from pipeline import images

    if data.startswith(b"\xff\xd8") and images.decode(data).shape[:2] == (size, size):
        return data
    return images.encode(images.decode(data, size), ".jpg", QUALITY, full_colour=True)


def _png(region: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", region)[1].tobytes()


def _plain(value: Any) -> Any:
    """A value for JSON. NaN becomes null, as many readers refuse it."""
    if isinstance(value, str):
        return value
    plain = np.asarray(value).tolist()
    return _no_nan(plain)


def _no_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_no_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
