"""A training run that takes seconds: the real networks, but narrow and with random weights, on synthetic shards."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.generators import mobilestylegan
from models.generators import stylegan2 as layers
from models.generators.interface import LayerEntry
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.stylegan2 import StyleGAN2
from models.hypernetworks import hypernetwork
from pipeline import images, profile
from pipeline.context import Context
from pipeline.shards import writer as shards
from stages.loaders import generator as networks
from stages.train import memory as train_memory

WIDTHS = (32, 32, 32, 32, 16, 8, 8)
SETTINGS = {
    "weights": "", "width": 8, "rank": 1, "refinement_iterations": 2, "start_layer": 3, "batch": 2, "micro_batch": 1,
    "reconstruction_steps": 2, "stylization_steps": 2, "reconstruction_every": 3, "ema": 0.9, "style": 0.0,
    "content": 0.0, "lambda2": 1.0, "discriminators_every": 1, "patches": 1, "validate_every": 0,
    "patch_discriminator_width": 0.03, "image_discriminator_base": 512,
}  # fmt: skip


def context(base: Path, run: str, **train: object) -> Context:
    """The portable profile with small settings, everything under `base`."""
    portable = profile.load("portable")
    small = dataclasses.replace(portable, train=dataclasses.replace(portable.train, **{**SETTINGS, **train}))
    return Context(small, cache=base / "cache", run=base / "runs" / run)


def install() -> None:
    """Make training use the narrow generator and heads."""
    torch.set_num_threads(1)
    networks.generator = generator
    # the real one takes seconds and has its own tests
    train_memory.forecast = lambda ctx, *, building=False: "" if building else "small"
    hypernetwork.DeltaHead = functools.partial(hypernetwork.DeltaHead, width=8, hidden=8)  # type: ignore[misc, assignment]


@contextmanager
def installed() -> Iterator[None]:
    """`install` within this context, undone afterwards."""
    originals = networks.generator, hypernetwork.DeltaHead, train_memory.forecast, torch.get_num_threads()
    install()
    try:
        yield
    finally:
        networks.generator, hypernetwork.DeltaHead, train_memory.forecast = originals[:3]  # type: ignore[misc]
        torch.set_num_threads(originals[3])


def generator(ctx: Context | None = None, *, full: bool = False) -> MobileStyleGAN:
    """The 256 px cut with few channels and random weights."""
    full, mobilestylegan.WIDTHS = mobilestylegan.WIDTHS, WIDTHS
    try:
        net = MobileStyleGAN(256)
    finally:
        mobilestylegan.WIDTHS = full
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.1 if p.ndim < 2 else p[0].numel() ** -0.5))
    return net.eval().to(ctx.device if ctx else "cpu")


class Narrow(StyleGAN2):
    """Takes as many of the samples' 18 latents as it has layers, which `table` lists."""

    table: list[LayerEntry]

    def layer_table(self) -> list[LayerEntry]:
        """As StyleGAN2."""
        return self.table

    def forward(self, latent: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        """As StyleGAN2."""
        return super().forward(latent[:, : self.num_ws], *rest, **more)  # type: ignore[arg-type]


def stylegan2(ctx: Context, *, full: bool = False) -> StyleGAN2:
    """A StyleGAN2 of 256 px with few channels and random weights."""
    usual, layers.CONSTANT = layers.CONSTANT, 16
    try:
        torch.manual_seed(0)
        net = Narrow(256, 1 / 16, 2).requires_grad_(False).eval().to(ctx.device)
        net.table = layers.layer_table(256, 1 / 16)
        return net
    finally:
        layers.CONSTANT = usual


def write_shards(
    ctx: Context, count: int = 3, latent: float = 1.0, made: dict[str, Any] | None = None, side: int = 256
) -> None:
    """Write shards of `count` samples per collection: coloured blobs of `side` px, random region maps and codes.

    `made` is the provenance in their index.
    """
    groups = [(name, "train", list(_samples(name, count, latent, side))) for name in ("content", "style")]
    ctx.shards.mkdir(parents=True, exist_ok=True)
    shards.write(ctx.shards, groups, 10**8, made or {})


def _samples(collection: str, count: int, latent: float, side: int) -> Iterator[tuple[str, shards.Sample]]:
    for i in range(count):
        rng = np.random.default_rng([i, *collection.encode()])
        image = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (side, side), interpolation=cv2.INTER_LINEAR)
        codes = rng.standard_normal((4, 256)).astype("<f4")
        yield (
            f"{collection}{i}",
            {
                "jpg": images.encode(image, ".jpg"),
                "region.png": png(rng.integers(0, 3, (4, 4)).astype(np.uint8).repeat(64, 0).repeat(64, 1)),
                "latent.npy": shards.npy((latent * rng.standard_normal((18, 512))).astype("<f4")),
                "codes.npy": shards.npy(codes / np.linalg.norm(codes, axis=1, keepdims=True)),
                "json": json.dumps({"key": f"{collection}{i}"}).encode(),
            },
        )


def png(region: np.ndarray) -> bytes:
    """A region map u8 [H, W] as PNG."""
    return cv2.imencode(".png", region)[1].tobytes()
