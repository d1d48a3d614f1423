"""Says what a stage would compute and why: which input, parameter or weight made how many rows stale."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipeline import weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.locks import reading
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import survey
from stages.portraits.kept import KeptPortraits
from stages.portraits.reader import PortraitReader
from stages.preprocess import shards
from stages.preprocess.chain import STAGES, sources, steps, unfinished

NOTHING = "nothing to compute"
Facts = dict[str, Any]


def explain(name: str | None, ctx: Context) -> list[Facts]:
    """What the stage `name` (None: each) would compute and why. Computes, fetches and writes nothing.

    One row per step and collection; a stage about which nothing can be said has one row with the `error`.
    Raises: UserError when there is such an error of the one stage `name`, or a stage is at work there: its parts come
        and go.
    """
    with reading(ctx.cache):
        if name:
            return _stage(name, ctx)
        found: list[Facts] = []
        for stage in STAGES:
            try:
                found += _stage(stage, ctx)
            except UserError as fault:
                found.append({"stage": stage, "error": str(fault)})
        return [*found, *_kept(ctx)]


def report(found: Sequence[Facts]) -> str:
    """The rows of `explain` for people."""
    lines = []
    for row in found:
        head = f"{row['stage']} {row['collection']}" if "collection" in row else row["stage"]
        if "error" in row:
            lines.append(f"{head}: {row['error']}")
        elif "waits_for" in row:
            lines.append(f"{head}: follows once {', '.join(row['waits_for'])} are there")
        elif "portraits" in row:
            lines.append(f"{head}: {row['portraits']} kept{'' if row['stale'] else f'; {NOTHING}'}")
            lines += [f"  {count} rows stale, computed when next used: {why}" for why, count in row["stale"].items()]
        elif "samples" in row:
            state = f"{row['samples']} samples to pack" if row["stale"] else f"{row['samples']} samples packed"
            lines += (
                [f"{head}: {state}", f"  stale: {row['stale']}"] if row["stale"] else [f"{head}: {state}; {NOTHING}"]
            )
        else:
            counts = f"{row['inputs']} inputs, {row['cached']} cached, {row['rejected']} rejected"
            lines.append(f"{head}: {counts}; {f'{n} to compute' if (n := row['to_compute']) else NOTHING}")
            lines += [f"  {count} rows stale: {cause}" for cause, count in row["stale"].items()]
            if row["renamed"]:
                lines.append(f"  {row['renamed']} rows renamed: the same content under another name, {NOTHING}")
            lines += [f"  {row['new']} keys new"] * bool(row["new"]) + [f"  {row['left']}"] * bool(row["left"])
        if first := row.get("first"):
            lines.append(f"  run {', '.join(first)} first: there is something to compute there as well")
    return "\n".join(lines)


def _stage(name: str, ctx: Context) -> list[Facts]:
    with weights.no_fetching():
        if name == "shards":
            samples, stale = shards.plan(ctx)
            found: list[Facts] = [{"stage": name, "samples": samples, "stale": stale}]
        else:
            found = [row for collection in COLLECTIONS for row in _steps(name, collection, ctx)]
        reads = sources(ctx)[name] | ({"samples"} if name == "shards" else set())
    first = [other for other in unfinished(ctx, before=name) if other in reads]
    if first:
        found[-1]["first"] = first
    return found


def _kept(ctx: Context) -> Iterator[Facts]:
    """The row about single portraits, if any are kept."""
    with weights.no_fetching(), suppress(UserError):  # without weights the stages above have told it
        reader = PortraitReader(ctx)
        count, stale = KeptPortraits(ctx).survey(*(reader.steps(collection) for collection in COLLECTIONS))
        if count:
            yield {"stage": "portraits", "portraits": count, "stale": stale}


def _steps(name: str, collection: str, ctx: Context) -> Iterator[Facts]:
    outputs = set[str]()
    for step in steps(name, collection, ctx):
        row: Facts = {"stage": step.name, "collection": collection}
        if missing := [p for p in step.parents if p in outputs and not ctx.file(collection, p).exists()]:
            yield row | {"waits_for": missing}
        else:
            yield explain_step(step, collection, ctx)
        outputs.add(step.output)


def explain_step(step: StageSpec, collection: str, ctx: Context) -> Facts:
    """The row of `explain` about one step and collection. Raises: UserError when `staleness.survey` does."""
    plan = survey(step, collection, ctx, retry=ctx.retry_rejected)
    return {
        "stage": step.name,
        "collection": collection,
        "inputs": plan.wanted,
        "cached": plan.cached,
        "rejected": plan.rejected,
        "to_compute": len(plan.todo),
        "renamed": len(plan.renamed),
        "new": plan.fresh,
        "stale": {_why(step, cause): count for cause, count in sorted(plan.stale.items())},
        "left": str(plan.inputs.left),
    }


def _why(stage: StageSpec, cause: str) -> str:
    """A cause, and what the new version of a stage brings where it is that."""
    return f"{cause} ({stage.news})" if stage.news and "version " in cause else cause
