"""What the trainings of all methods share: how one is used by the loop, its batches, its rate."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.baselines.vgg19 import Decoder, Encoder
from models.losses.feature_statistics import Seen
from pipeline import images, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.shards.indexed import Samples
from stages.loaders.load import load
from stages.train.precision import autocast

RATE, DECAY = 1e-4, 5e-5
ENCODER = "adain-vgg19"

Told = tuple[dict[str, float], str]  # the losses of a step, and what was not finite
Precision = Callable[[], AbstractContextManager[object]]  # gives contexts for networks; losses are taken outside


class Training(Protocol):
    """One method in training.

    `BATCH` is the published number of pairs per step; a crop's sides are multiples of `MULTIPLE` px from `LEAST`.
    """

    BATCH: int
    MULTIPLE: int
    LEAST: int

    def __init__(self, ctx: Context) -> None: ...

    @property
    def model(self) -> nn.Module:
        """The network as it is evaluated."""

    @property
    def nets(self) -> Mapping[str, nn.Module]:
        """What a checkpoint holds, by prefix."""

    @property
    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Those of `nets`."""

    def step(self, content: Tensor, style: Tensor, number: int) -> Told:
        """Learn from contents and styles [N, 3, C, C] in [-1, 1]."""

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by the registered name of each published file, in its layout."""


class Pairs:
    """`pairs[step]` is that step's contents and styles, u8 [N, crop, crop, 3] each, from the training shards.

    Raises: UserError(2) when a crop does not fit into the images.
    """

    def __init__(self, ctx: Context, crop: int, batch: int) -> None:
        self.samples = [Samples(ctx.training_shards, name, "train") for name in COLLECTIONS]
        self.crop, self.batch, self.seed = crop, batch, ctx.profile.seed
        side = min(image_of(samples, 0).shape[0] for samples in self.samples)
        if crop > side:
            raise UserError(f"baselines.crop is {crop} px, but the shards' images have {side} px; make it smaller", 2)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, step])
        content, style = (np.stack([*self._crops(samples, rng)]) for samples in self.samples)
        return content, style

    def _crops(self, samples: Samples, rng: np.random.Generator) -> Iterator[np.ndarray]:
        for number in rng.choice(len(samples), self.batch, replace=self.batch > len(samples)):
            image = image_of(samples, int(number))
            top, left = (int(rng.integers(side - self.crop + 1)) for side in image.shape[:2])
            yield image[top : top + self.crop, left : left + self.crop]


def image_of(samples: Samples, number: int) -> np.ndarray:
    """The image u8 [H, W, 3] of a sample; its other fields are not decoded."""
    return next(value.copy() for name, value in samples.fields(number) if name == "image")


def to_device(batch: tuple[np.ndarray, np.ndarray], device: str) -> tuple[Tensor, Tensor]:
    """Contents and styles as tensors [N, 3, C, C] in [-1, 1] on the device."""
    content, style = (images.to_tensor(part).to(device) for part in batch)
    return content, style


def rate(number: int, warm_up: int = 0) -> float:
    """The learning rate of a step from 0; it rises over the first `warm_up` steps."""
    return RATE / (1 + DECAY * number) * rise(number, warm_up)


def rise(number: int, warm_up: int) -> float:
    """The share of its learning rate that a step from 0 has: it rises to 1 over the first `warm_up` steps."""
    return min(1.0, (number + 1) / max(1, warm_up))


def precision_of(ctx: Context) -> Precision:
    """The arithmetic of the networks as the profile has it. Raises: UserError(2) when the device does not have it."""
    return autocast(ctx.device, "baselines", ctx.profile.baselines.precision)


def encoder(depth: int = 5) -> Encoder:
    """The frozen normalised VGG19."""
    return Encoder.load(weights.tensors(ENCODER), depth)


def new_decoder(ctx: Context) -> Decoder:
    """A decoder to be trained, from the weights that the profile names."""
    name = ctx.profile.baselines.decoder
    return (load(name, Decoder.load) if name else Decoder()).requires_grad_(True)


def see(net: Encoder, image: Tensor, precision: Precision) -> Seen:
    """Images [N, 3, H, W] in [0, 1] and their taps, in float32."""
    image = image.float().contiguous(memory_format=torch.channels_last)  # so convolutions are faster on CPUs
    with precision():
        taps = net.taps(image)
    return Seen(image, [tap.float() for tap in taps])


def adam(*nets: nn.Module, **options: Any) -> torch.optim.Adam:
    """Adam over all parameters of the networks at the published rate."""
    return torch.optim.Adam([p for net in nets for p in net.parameters()], lr=RATE, **options)


def numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The means of the terms, to be logged; fetched from the device at once."""
    means = torch.stack([value.detach().mean() for value in terms.values()]).cpu().tolist()
    return dict(zip(terms, means, strict=True))
