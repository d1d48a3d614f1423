"""The local engine: computes a stage in this process, one part after the other."""

import time

from pipeline.caches import writer as parts
from pipeline.caches.writer import PendingRows
from pipeline.context import Context
from pipeline.progress import Progress
from pipeline.runner import compute as shared
from pipeline.runner import staleness as planning
from pipeline.runner.compute import work
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import Plan


def compute(stage: StageSpec, collection: str, ctx: Context, plan: Plan, progress: Progress) -> None:
    """Compute `plan.todo` into parts. Whatever happens, the parts written so far stay.

    Raises: UserError when the worker fails.
    """
    layout = planning.layout(stage, ctx, plan.inputs)
    batch = PendingRows.empty()
    opened = time.monotonic()
    try:
        for done in work(stage, stage.open(ctx), collection, ctx, plan.inputs, plan.todo):
            batch.extend(done)
            progress.add(len(done), len(done.rejects))
            if batch.nbytes > shared.PART_BYTES or time.monotonic() - opened > shared.PART_SECONDS:
                parts.write_part(plan.path, batch, layout)
                plan.inputs.fingerprints.note()
                batch, opened = PendingRows.empty(), time.monotonic()
    finally:
        if len(batch):
            parts.write_part(plan.path, batch, layout)
