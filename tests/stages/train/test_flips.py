"""Mirrored contents: image, map and latent fit one another, and which are mirrored follows from seed and step."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from models.losses.objectives import Batch
from pipeline import profile
from pipeline.context import Context
from stages.train.data import Pair
from stages.train.flips import Flips


def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(8, 3, 32, 32, generator=rng) * 2 - 1
    region = torch.randint(0, 3, (8, 32, 32), generator=rng).byte()
    return Batch(image, torch.zeros(8, 8, 512), region, torch.zeros(8, 4, 256), region.numpy())


def test_a_mirrored_content_is_inverted_anew_and_its_map_goes_with_it() -> None:
    flips, plain = Flips(Context(profile.load("tiny"), run=Path("none"))), batch()
    [pair], [again], [other] = (flips([Pair(0, plain, plain)], step) for step in (3, 3, 4))
    found = pair.content
    turned = [i for i in range(8) if not torch.equal(found.image[i], plain.image[i])]
    assert 0 < len(turned) < 8 and pair.style is plain
    for i in range(8):
        mirrored = i in turned
        assert torch.equal(found.image[i], plain.image[i].flip(-1) if mirrored else plain.image[i])
        assert torch.equal(found.region[i], plain.region[i].flip(-1) if mirrored else plain.region[i])
        latent = flips.invert(found.image[i : i + 1])[0] if mirrored else plain.latent[i]
        assert torch.equal(found.latent[i], latent)
    assert np.array_equal(found.maps(), found.region.numpy()) and np.array_equal(plain.maps(), plain.region.numpy())
    assert torch.equal(found.image, again.content.image) and not torch.equal(found.image, other.content.image)
    assert dataclasses.replace(found, image=plain.image).codes is plain.codes
