"""Train the hypernetwork on the shards: reconstruction of both collections, then stylisation (paper sections 3.3-3.5).

Every random number is a function of (seed, step, micro-batch). So the same command resumes a killed run exactly, and
several processes (torchrun) compute what one would.
"""

import math
import time
from contextlib import nullcontext
from pathlib import Path

from pipeline import device
from pipeline.context import Context
from pipeline.progress import say
from pipeline.shards.indexed import Samples
from pipeline.training import checkpoint
from pipeline.training.distributed import ProcessGroup, init_distributed
from pipeline.training.loop import SAVE_EVERY, Loop, lock_run
from stages.loaders import generator as generators
from stages.loaders import origins
from stages.preprocess import compatibility
from stages.train import data, flips, memory, page, validate
from stages.train.state import State, build, enter_phase, start, step_of
from stages.train.step import Step, schedule


def run(
    ctx: Context,
    *,
    steps: int | None = None,
    shipped: bool = True,
    phase: str | None = None,
    export: Path | None = None,
    minutes: float | None = None,
    deterministic: bool = False,
) -> int:
    """Train in `ctx.run` until `steps` in all (default: the profile's), or `minutes` of this call are over.

    A new run starts from the shipped weights in the stylisation phase, or with `shipped` False from random ones in the
    reconstruction phase; `phase` overrides that. `export` is the file to write the EMA weights to, in fp16.
    A resumed run is the same to the bit on a CPU; on a GPU only with `deterministic`, where its operations allow it.
    """
    if deterministic:
        device.deterministic()
    # Locked before anything is loaded: a checkpoint that another run is about to replace would be the wrong start.
    with (
        nullcontext() if deterministic else device.tuned(ctx.device),
        init_distributed(ctx) as (process_group, ctx),
        lock_run(ctx.run, process_group),
    ):
        return _train(
            ctx, process_group, schedule(ctx.profile.train) if steps is None else steps, shipped, phase, export, minutes
        )


def _train(
    ctx: Context,
    process_group: ProcessGroup,
    total: int,
    shipped: bool,
    phase: str | None,
    export: Path | None,
    minutes: float | None,
) -> int:
    settings = ctx.profile.train
    content, style = (Samples(ctx.training_shards, name, "train") for name in ("content", "style"))
    compatibility.refuse_others(ctx, content.provenance, content.folder)
    generator = generators.generator(ctx)
    data.refuse_uneven(settings, process_group)
    if step_of(ctx) < total and (warning := memory.forecast(ctx, building=True)):  # there may be no room for them
        say(warning)
    samples = {name: value for name, value in content.provenance.items() if name in ("encoder", "latents")}
    made = origins.generator(ctx) | samples
    data_set = {"content": content.identity(), "style": style.identity()}
    state = start(ctx, build(ctx, generator, made, data_set), generator, shipped, process_group, phase)
    if state.step >= total and not export:
        say(f"train: {state.step} steps in {ctx.run}; there is nothing left to do")
        return 0
    with memory.advice(ctx):
        ctx = memory.choose_micro_batch(ctx, state, generator, process_group)
    step = Step(ctx, state, generator, process_group)
    grid = validate.Grid(ctx, generator, state.ema) if settings.validate_every and process_group.is_main else None
    mirrored = flips.Flips(ctx) if settings.flips else None
    batches = data.pairs(ctx, content, style, state.step, process_group)
    with (
        Loop.of(
            "train",
            state,
            total,
            minutes=minutes,
            images=settings.batch,
            save_every=SAVE_EVERY,
            process_group=process_group,
        ) as loop,
        memory.advice(ctx),
    ):
        if process_group.is_main and state.step < total:
            say(memory.forecast(ctx))
        for number in loop:
            enter_phase(state, settings)
            started = time.perf_counter()
            pairs = next(batches)
            waited = time.perf_counter() - started
            pairs = mirrored(pairs, state.step) if mirrored else pairs
            terms = step(pairs)
            bad = sorted(name for name, value in terms.items() if not math.isfinite(value))
            state.skipped += bool(bad)
            state.step = number + 1
            loop.count(", ".join(bad))
            loop.tell(terms, phase=state.phase, wait=round(waited, 4), seconds=round(time.perf_counter() - started, 4))
            if grid is not None and state.step % settings.validate_every == 0:
                loop.picture("grid", grid.draw(state.step))
    if process_group.is_main:
        _finish(ctx, state, export, len(content), len(style))
    return 0


def _finish(ctx: Context, state: State, export: Path | None, contents: int, styles: int) -> None:
    if export:
        what = f"hypernetwork for {ctx.profile.generator.kind}, {ctx.profile.generator.size} px"
        meta = {
            "what": what,
            "steps": state.step,
            "phase": state.phase,
            "contents": contents,
            "styles": styles,
            "command": "hypernst train",
        }
        checkpoint.save(export, checkpoint.half(state.ema.state_dict()), meta)
    skipped = f", {state.skipped} skipped because they were not finite" if state.skipped else ""
    say(f"train: {state.step} steps in {ctx.run}{skipped}; {page.write(ctx)}")
