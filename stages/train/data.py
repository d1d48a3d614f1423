"""The training pairs: which micro-batches of contents and styles a process gets in a step.

A step has batch / micro_batch micro-batches. They are the same for any number of processes; each process takes its
share of them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.losses.objectives import Batch
from models.regions import CODE_SIZE
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import Train
from pipeline.shards.indexed import Loader, Samples
from pipeline.shards.store import Store
from pipeline.training.distributed import ProcessGroup

WORKERS = min(4, os.cpu_count() or 1)  # of a loader, for a GPU
PREFETCHED = 2  # batches of each worker: DataLoader's default


@dataclass(frozen=True)
class Pair:
    """Micro-batch `number` of a step: as many contents as styles, on the device."""

    number: int
    content: Batch
    style: Batch


def micro_batches(settings: Train) -> int:
    """How many micro-batches make a step."""
    return max(1, settings.batch // settings.micro_batch)


def refuse_uneven(settings: Train, process_group: ProcessGroup) -> None:
    """Raises: UserError(2) when a step's samples cannot be split evenly into micro-batches and over processes."""
    size, processes = settings.micro_batch or 1, process_group.world_size
    if settings.batch % size or settings.batch // size % processes:
        raise UserError(
            f"train: a batch of {settings.batch} in micro-batches of {size} does not split evenly over {processes} "
            "process(es); change train.batch or train.micro_batch",
            2,
        )


def pairs(
    ctx: Context, content: Samples, style: Samples, step: int, process_group: ProcessGroup
) -> Iterator[list[Pair]]:
    """This process's pairs, step by step without end, from step `step` of the run on. Both collections are shuffled."""
    settings = ctx.profile.train
    every = micro_batches(settings)
    share = every // process_group.world_size
    loaders = [
        _Share(
            samples,
            settings.micro_batch,
            2 * ctx.profile.seed + offset,
            every=every,
            mine=range(process_group.rank * share, (process_group.rank + 1) * share),
            device=ctx.device,
        )
        for offset, samples in enumerate((content, style))
    ]
    for loader in loaders:
        loader.step = step
    both = zip(*loaders, strict=True)
    while True:
        yield [_pair(process_group.rank * share + i, next(both), ctx.device) for i in range(share)]


def prefetched_bytes(ctx: Context) -> int:
    """Bytes of shared memory that a process's loaders fill ahead of training on a GPU."""
    side, layers = ctx.profile.generator.size, 18  # W+ layers, at most
    sample = 4 * side * side + 4 * layers * 512 + 4 * 4 * CODE_SIZE  # image and region map, latent, codes
    at_once = ctx.profile.train.micro_batch or ctx.profile.train.batch
    return 2 * WORKERS * PREFETCHED * at_once * sample


class _Share(Loader):
    """A loader of one process's micro-batches `mine` of each step's `every`; its `step` counts steps."""

    def __init__(self, samples: Samples, batch: int, seed: int, *, every: int, mine: range, device: str) -> None:
        gpu = device.startswith("cuda")
        workers = WORKERS if gpu else int(isinstance(samples.folder, Store))
        super().__init__(samples, batch, seed, workers=workers, pin=gpu, full=True)
        self._every, self._mine = every, mine

    def numbers(self) -> Iterator[int]:
        """The numbers of this process's micro-batches, in order."""
        step = self.step
        while True:
            yield from (step * self._every + i for i in self._mine)
            step += 1


def _pair(number: int, both: tuple[Mapping[str, Any], Mapping[str, Any]], device: str) -> Pair:
    content, style = both
    return Pair(number, to_batch(content, device), to_batch(style, device))


def to_batch(rows: Mapping[str, Any], device: str) -> Batch:
    """A loader's batch on the device; images are normalised there."""
    names = ("image", "latent", "region", "codes")
    image, latent, region, codes = (rows[name].to(device, non_blocking=True) for name in names)
    image = image.permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return Batch(image, latent.float(), region, codes.float(), rows["region"].numpy())
