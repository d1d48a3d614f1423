"""Mirrors half of the contents: image and region map are flipped, and the flipped image is inverted anew.

A latent has no mirror image of its own, so only an inversion that costs little beside a step is worth it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from models.losses.objectives import Batch
from pipeline.context import Context
from stages.loaders.inversion import inversion
from stages.train.data import Pair


class Flips:
    """Mirrors the contents of pairs at random, the same for the same seed, step and micro-batch.

    The codes stay those of the image as it was: windows of a style look alike from both sides.
    """

    def __init__(self, ctx: Context) -> None:
        self.seed, self.invert = ctx.profile.seed, inversion(ctx)

    def __call__(self, pairs: Sequence[Pair], step: int) -> list[Pair]:
        """The pairs of a step with some of their contents mirrored."""
        return [dataclasses.replace(pair, content=self._batch(pair.content, step, pair.number)) for pair in pairs]

    @torch.no_grad()
    def _batch(self, batch: Batch, step: int, number: int) -> Batch:
        chosen = np.flatnonzero(np.random.default_rng([self.seed, step, number, 2]).random(len(batch.image)) < 0.5)
        image, region, latent, labels = (
            batch.image.clone(),
            batch.region.clone(),
            batch.latent.clone(),
            batch.maps().copy(),
        )
        for i in chosen:
            image[i], region[i], labels[i] = image[i].flip(-1), region[i].flip(-1), labels[i][:, ::-1]
            latent[i] = self.invert(image[i : i + 1])[0]  # one at a time: as the stage inverts
        return Batch(image, latent, region, batch.codes, labels)
