"""How much memory a training step takes, computed before the first step, and which settings would take less."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from models.generators.interface import Generator
from models.losses import region_patches
from models.losses.objectives import Batch
from models.regions import REGION_COUNT
from pipeline import device, files, weights
from pipeline.context import Context
from pipeline.errors import UserError, is_out_of_memory
from pipeline.profile import Train
from pipeline.progress import say
from pipeline.training.distributed import ALONE, ProcessGroup
from pipeline.training.peak_memory import PeakMemory
from stages.loaders import generator as generators
from stages.train.state import State, build
from stages.train.step import PENALTY_EVERY, Step

GB = 1e9
OVERHEAD = 0.7  # GB that a process takes before it has any tensor
SHARE = 0.9  # of the free memory that a chosen micro-batch may take
LARGE = 4.0  # GB from which on building the networks on a CPU, and each step, takes up to minutes
MOMENTS = 2  # that Adam keeps for every trained parameter


def step_bytes(ctx: Context) -> int:
    """The most bytes of tensors at any time of a step with everything: both losses, discriminators with penalties.

    It is for one process and `micro_batch` samples at once, in float32. The accumulated gradients, Adam's moments and
    the EMA weights are included. Nothing is computed and no weights are needed.
    """
    train = dataclasses.replace(
        ctx.profile.train,
        precision="float32",
        refinement_iterations=min(2, ctx.profile.train.refinement_iterations),  # a third one takes as much
        image_discriminator="",  # sizes are counted on networks of the profile's width
        patch_discriminator="",
        micro_batch=ctx.profile.train.micro_batch or 1,
    )
    return _step_bytes(dataclasses.replace(_with(ctx, train), device="meta", run=Path(), cache=Path()))


@lru_cache(64)
def _step_bytes(ctx: Context) -> int:
    with PeakMemory() as peak:
        generator = generators.blank(ctx)
        state = build(ctx, generator)
        step = Step(ctx, state, generator, trained=False)
        _whole_step(step, _batch(step.settings, ctx.profile.generator.size, generator.num_ws))
    return peak.most + _moments(state)


def _moments(state: State) -> int:
    trained = (state.hyper, state.image_discriminator, state.patch_discriminator)
    return MOMENTS * sum(p.nbytes for net in trained for p in net.parameters())


def choose_micro_batch(
    ctx: Context, state: State, generator: Generator, process_group: ProcessGroup = ALONE
) -> Context:
    """The context with as large a `micro_batch` as fits in every process, where the profile leaves it open with 0.

    On a GPU steps are taken and their peaks measured, as libraries need what no count knows. Elsewhere it is counted. A
    resumed run keeps what it began with.
    """
    settings = ctx.profile.train
    if settings.micro_batch:
        return ctx
    size = int(state.extra.get("micro_batch", 0))
    if not size or settings.batch % size:
        gpu, free = ctx.device.startswith("cuda"), SHARE * (available(ctx.device) - _mirrors(ctx))
        need = _measured(ctx, state, generator, free) if gpu else partial(_counted, ctx)
        whole = [n for n in range(settings.batch, 0, -1) if settings.batch % (n * process_group.world_size) == 0]
        size = next((n for n in whole if not process_group.any(need(n) > free)), 1)
        how = "measured" if gpu else "counted"
        say(f"train: micro-batches of {size}: {need(size):.1f} GB of {free:.1f} GB, {how}")
        state.extra["micro_batch"] = size
    return _with(ctx, dataclasses.replace(settings, micro_batch=size))


def _counted(ctx: Context, samples: int) -> float:
    return step_bytes(_with(ctx, dataclasses.replace(ctx.profile.train, micro_batch=samples))) / GB + OVERHEAD


def _measured(ctx: Context, state: State, generator: Generator, free: float) -> Callable[[int], float]:
    """The GB that a step of so many samples takes on a GPU; of too many perhaps less, but more than are free.

    Peaks are the largest of several lines, so the one through those of one and of two samples lies below the others.
    """

    @lru_cache
    def peak(samples: int) -> float:
        try:
            return _peak(ctx, state, generator, samples) + _moments(state) / GB
        except torch.OutOfMemoryError:
            return math.inf

    def need(samples: int) -> float:
        if samples <= 2 or math.isinf(peak(2)):
            return peak(min(samples, 2))
        least = peak(1) + (samples - 1) * (peak(2) - peak(1))
        return least if least > free else peak(samples)

    return need


def _peak(ctx: Context, state: State, generator: Generator, samples: int) -> float:
    """The most GB that PyTorch held on the GPU in a step of `samples`; the step changes nothing."""
    settings = dataclasses.replace(ctx.profile.train, micro_batch=samples)
    step = Step(_with(ctx, settings), state, generator, trained=False)
    parts = vars(_batch(settings, ctx.profile.generator.size, generator.num_ws)).items()
    batch = Batch(**{name: part.to(ctx.device) for name, part in parts if part is not None})
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(ctx.device)
    try:
        _whole_step(step, batch)
        return torch.cuda.max_memory_reserved(ctx.device) / GB
    finally:
        for optimiser in state.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def forecast(ctx: Context, *, building: bool = False) -> str:
    """A line for the user before the first step; or before networks are built, "" where that takes no long time.

    Raises: UserError(2) when the step does not fit; it names settings that do.
    """
    need, free = step_bytes(ctx) / GB + OVERHEAD, available(ctx.device) - _mirrors(ctx)
    if need > free:
        raise UserError(
            f"train: a step takes about {need:.1f} GB, {ctx.device} has {free:.1f} GB; {_way_out(ctx, free)}", 2
        )
    if building:
        if need < LARGE or ctx.device != "cpu":
            return ""
        return f"train: a step takes about {need:.1f} GB: building such networks, and each step, takes minutes"
    s = ctx.profile.train
    return (
        f"train: a step of {s.batch} in micro-batches of {s.micro_batch} takes about {need:.1f} GB of "
        f"{free:.1f} GB on {ctx.device}"
    )


@contextmanager
def advice(ctx: Context) -> Iterator[None]:
    """Turn an error for lack of memory into one that names the settings that would fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
        need = step_bytes(ctx) / GB + OVERHEAD
        raise UserError(
            f"train: out of memory on {ctx.device}; a step takes about {need:.1f} GB, and another program may "
            f"use memory there; {_way_out(ctx, need * 0.9)}"
        ) from e


def _mirrors(ctx: Context) -> float:
    """The GB of the inversion that train.flips needs."""
    p = ctx.profile
    names = (p.inverter.weights, p.generator.weights) if p.train.flips else ()
    return sum(files.size(place) for name in names if name and (place := weights.local(name))) / GB


def available(where: str) -> float:
    """The GB that are free on a device, or that this process holds already: its networks are part of what it needs."""
    if where.startswith("cuda"):
        return (torch.cuda.mem_get_info(where)[0] + torch.cuda.memory_reserved(where)) / GB
    return (device.memory()[1] + device.held()) / GB


def savings(settings: Train) -> Iterator[Train]:
    """Settings for the same step with less memory, the slowest last: fewer samples at once, then recomputation."""
    sizes = [n for n in range(settings.micro_batch or settings.batch, 0, -1) if settings.batch % n == 0]
    for checkpointing in dict.fromkeys((settings.checkpointing, True)):
        for size in sizes:
            yield dataclasses.replace(settings, micro_batch=size, checkpointing=checkpointing)


def _way_out(ctx: Context, free: float) -> str:
    least = float("inf")
    for settings in savings(ctx.profile.train):
        need = step_bytes(_with(ctx, settings)) / GB + OVERHEAD
        if need < free:
            return (
                f"this would fit, with {need:.1f} GB and the same batch: train.micro_batch = "
                f"{settings.micro_batch}, train.checkpointing = {str(settings.checkpointing).lower()}"
            )
        least = min(least, need)
    return (
        f"this network needs at least {least:.1f} GB; use a larger device, a smaller generator, or "
        'train.heads = "channel"'
    )


def _with(ctx: Context, settings: Train) -> Context:
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, train=settings))


def _batch(settings: Train, size: int, num_ws: int) -> Batch:
    n = settings.micro_batch
    return Batch(
        torch.zeros(n, 3, size, size),
        torch.zeros(n, num_ws, 512),
        torch.zeros(n, size, size, dtype=torch.uint8),
        torch.zeros(n, 4, 256),
    )


def _whole_step(step: Step, batch: Batch) -> None:
    """All that `Step` does with one micro-batch in which both images have every region."""
    s, rng = step.settings, np.random.default_rng(0)
    sample, region = np.divmod(np.arange(len(batch.image) * REGION_COUNT), REGION_COUNT)
    boxes = np.tile(np.array([0, 0, s.patch, s.patch]), (len(sample), s.patches, 1))
    groups = region_patches.PatchGroups(sample, region, boxes, boxes, boxes)
    inversion = step.invert(batch)
    for y in step.refine(batch, inversion, batch.codes, rng):
        step.reconstruction(y, batch)[0].backward()
    for y in step.refine(batch, inversion, batch.codes, rng):
        step.stylization(y, batch, batch, groups, s.discriminators_every)[0].backward()
    if s.lambda2:
        step.stylization.discriminator(y, batch, groups)[0].backward()
        for loss, _ in step.stylization.penalties(batch, groups, PENALTY_EVERY):
            loss.backward()
