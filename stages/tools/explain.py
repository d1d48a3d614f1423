"""Tells what a stage would compute and why: which input, parameter or weight made how many rows stale."""

from pipeline.context import Context
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import survey


def explain(stage: StageSpec, collection: str, ctx: Context) -> str:
    """A few lines on one collection; computes and writes nothing.

    Raises: Fault as `plan.survey` does.
    """
    plan = survey(stage, collection, ctx, retry=ctx.retry_rejected)
    head = f"{stage.name} {collection}: {len(plan.wanted)} inputs, {plan.cached} cached, {plan.rejected} rejected"
    lines = [f"  {count} rows stale: {cause}" for cause, count in sorted(plan.stale.items())]
    if plan.fresh:
        lines.append(f"  {plan.fresh} keys new")
    state = f"{len(plan.todo)} to compute" if plan.todo else "nothing to compute"
    return "\n".join([f"{head}; {state}", *lines])

