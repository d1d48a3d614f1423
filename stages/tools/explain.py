"""Says what a stage would compute and why: which input, parameter or weight made how many rows stale."""

from pipeline import weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.locks import reading
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import survey
from stages.preprocess import shards
from stages.preprocess.chain import STAGES, sources, steps, unfinished


def explain_step(stage: StageSpec, collection: str, ctx: Context) -> str:
    """A few lines on one collection. Computes and writes nothing.

    Raises: UserError when `staleness.survey` does.
    """
    plan = survey(stage, collection, ctx, retry=ctx.retry_rejected)
    head = f"{stage.name} {collection}: {len(plan.wanted)} inputs, {plan.cached} cached, {plan.rejected} rejected"
    lines = [f"  {count} rows stale: {cause}" for cause, count in sorted(plan.stale.items())]
    if plan.fresh:
        lines.append(f"  {plan.fresh} keys new")
    if left := str(plan.inputs.left):
        lines.append(f"  {left}")
    state = f"{len(plan.todo)} to compute" if plan.todo else "nothing to compute"
    return "\n".join([f"{head}; {state}", *lines])


def explain(name: str, ctx: Context) -> str:
    """What the stage `name` would compute and why, a few lines per collection. Computes, fetches and writes nothing.

    Raises: UserError when a stage is at work there: its parts come and go.
    """
    with weights.no_fetching(), reading(ctx.cache):
        if name == "shards":
            text = shards.explain(ctx)
        else:
            text = "\n".join(_explain(name, collection, ctx) for collection in COLLECTIONS)
        reads = sources(ctx)[name] | ({"samples"} if name == "shards" else set())
    first = [other for other in unfinished(ctx, before=name) if other in reads]
    return text + (f"\n  run {', '.join(first)} first: there is something to compute there as well" if first else "")


def _explain(name: str, collection: str, ctx: Context) -> str:
    lines, outputs = [], set[str]()
    for step in steps(name, collection, ctx):
        missing = [p for p in step.parents if p in outputs and not ctx.file(collection, p).exists()]
        waits = f"{step.name} {collection}: follows once {', '.join(missing)} are there"
        lines.append(waits if missing else explain_step(step, collection, ctx))
        outputs.add(step.output)
    return "\n".join(lines)


def explain_all(ctx: Context) -> str:
    """`explain` of every stage, or the error in its way. Raises: UserError when a stage is at work there."""
    texts = []
    with reading(ctx.cache):
        for name in STAGES:
            try:
                texts.append(explain(name, ctx))
            except UserError as fault:
                texts.append(f"{name}: {fault}")
    return "\n".join(texts)
