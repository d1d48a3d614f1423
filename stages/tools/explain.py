"""Tells what a stage would compute and why: which input, parameter or weight made how many rows stale."""

from pipeline import weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import survey
from stages.preprocess import shards
from stages.preprocess.chain import STAGES, sources, steps, unfinished


def explain_step(stage: StageSpec, collection: str, ctx: Context) -> str:
    """A few lines on one collection; computes and writes nothing.

    Raises: UserError as `plan.survey` does.
    """
    plan = survey(stage, collection, ctx, retry=ctx.retry_rejected)
    head = f"{stage.name} {collection}: {len(plan.wanted)} inputs, {plan.cached} cached, {plan.rejected} rejected"
    lines = [f"  {count} rows stale: {cause}" for cause, count in sorted(plan.stale.items())]
    if plan.fresh:
        lines.append(f"  {plan.fresh} keys new")
    state = f"{len(plan.todo)} to compute" if plan.todo else "nothing to compute"
    return "\n".join([f"{head}; {state}", *lines])


def explain(name: str, ctx: Context) -> str:
    """What the stage `name` would compute and why, a few lines a collection; computes, fetches and writes nothing."""
    with weights.no_fetching():
        if name == "shards":
            told = shards.explain(ctx)
        else:
            told = "\n".join(_explain(name, collection, ctx) for collection in COLLECTIONS)
        reads = sources(ctx)[name] | ({"samples"} if name == "shards" else set())
    first = [other for other in unfinished(ctx, before=name) if other in reads]
    return told + (f"\n  {', '.join(first)} first: something is to do there as well" if first else "")


def _explain(name: str, collection: str, ctx: Context) -> str:
    lines, made = [], set[str]()
    for step in steps(name, collection, ctx):
        unmade = [parent for parent in step.parents if parent in made and not ctx.file(collection, parent).exists()]
        waits = f"{step.name} {collection}: follows, once {', '.join(unmade)} are made"
        lines.append(waits if unmade else explain_step(step, collection, ctx))
        made.add(step.output)
    return "\n".join(lines)


def explain_all(ctx: Context) -> str:
    """`explain` of every stage, or what keeps it from being told."""
    told = []
    for name in STAGES:
        try:
            told.append(explain(name, ctx))
        except UserError as fault:
            told.append(f"{name}: {fault}")
    return "\n".join(told)
