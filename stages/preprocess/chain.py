"""The preprocessing stages in the order data flows: their steps, and which of them have something to compute."""

from collections.abc import Callable, Iterator
from functools import partial

from pipeline import weights
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.runner.recipe import change
from pipeline.runner.run import run_stage
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import is_settled, survey
from stages.preprocess import aladin_codes, align, latents, masks, samples, shards

# the stages that fill one cache file per collection, in order, with the steps of each
CACHED: dict[str, Callable[[Context, str], tuple[StageSpec, ...]]] = {
    "align": lambda ctx, collection: (align.spec(ctx, collection),),
    "latents": lambda ctx, collection: (latents.spec(ctx, collection),),
    "masks": lambda ctx, collection: (masks.parse_spec(ctx), masks.spec(ctx)),
    "aladin-codes": lambda ctx, collection: (aladin_codes.spec(ctx),),
}
STAGES = (*CACHED, "shards")


Wanted = dict[tuple[str, str], set[str] | None]  # (cache or "shards", collection) -> keys, None: not known


def steps(name: str, collection: str, ctx: Context) -> tuple[StageSpec, ...]:
    """The steps of the stage `name` over `collection`, in order; most stages have one."""
    return CACHED[name](ctx, collection)


def unfinished(ctx: Context, before: str = "") -> list[str]:
    """The stages that have something to compute, in order; the samples too, if the run reads them.

    A stage that reads what another one will change counts as well, and so does one that cannot be described.
    """
    stages = STAGES[: STAGES.index(before)] if before else STAGES
    names: list[str] = []
    with weights.no_fetching():
        uses_samples = ctx.content == ctx.cache / "samples" / "content" or ctx.style == ctx.cache / "samples" / "style"
        if uses_samples and not _holds(lambda: samples.is_current(ctx)):
            return ["samples", *stages]
        reads = sources(ctx)
        for name in stages:
            if set(names) & reads[name] or not _holds(partial(_up_to_date, name, ctx)):
                names.append(name)
    return names


def sources(ctx: Context) -> dict[str, set[str]]:
    """For each stage, the stages whose caches it reads, directly or through others, as its steps' parents say.

    For a stage that cannot be described (its weights are missing) all earlier ones count.
    """
    reads: dict[str, set[str]] = {}
    makers: dict[str, str] = {}
    for name in CACHED:
        try:
            described = steps(name, COLLECTIONS[0], ctx)
        except UserError:
            reads[name] = set(reads)
            continue
        direct = {makers[parent] for step in described for parent in step.parents if parent in makers}
        reads[name] = direct.union(*(reads[other] for other in direct))
        makers |= {step.output: name for step in described}
    return reads | {"shards": set(CACHED)}


def _up_to_date(name: str, ctx: Context) -> bool:
    if name == "shards":
        return shards.is_current(ctx)
    return all(
        _step_is_current(step, collection, ctx) for collection in COLLECTIONS for step in steps(name, collection, ctx)
    )


def _step_is_current(step: StageSpec, collection: str, ctx: Context) -> bool:
    if is_settled(step, collection, ctx):
        return True
    plan = survey(step, collection, ctx)
    return not (plan.todo or plan.dirty)


def _holds(check: Callable[[], bool]) -> bool:
    """What `check` returns; false where it fails: the stage says why when it runs."""
    try:
        return check()
    except UserError:
        return False


def rebuild(ctx: Context, wanted: Wanted) -> None:
    """Recompute only these keys of caches (None: whatever is missing) and these shards, in the order of the stages.

    A collection whose caches were made with another recipe than the profile's is left as it is; a message says so.
    """
    other = {name: _made_otherwise(ctx, name) for name in COLLECTIONS}
    for collection in {c for _, c in wanted if other.get(c)}:
        say(f"{collection}: {other[collection]}; use --profile with the one it was made with, or run the stages")
    for collection in (name for name in COLLECTIONS if not other[name]):
        for step in _all_steps(collection, ctx):
            if (step.output, collection) in wanted:
                run_stage(step, collection, ctx, wanted[step.output, collection])
    if any(name == "shards" for name, _ in wanted) and not any(other.values()):
        shards.repack(ctx, wanted["shards", ctx.shards.name] or set())


def _all_steps(collection: str, ctx: Context) -> Iterator[StageSpec]:
    return (step for name in CACHED for step in steps(name, collection, ctx))


def _made_otherwise(ctx: Context, collection: str) -> str:
    """How the first cache that was made by another recipe differs; "" if there is none."""
    for step in _all_steps(collection, ctx):
        path = ctx.file(collection, step.output)
        if path.exists():
            with Cache(path) as cache:
                if changed := change(cache.provenance, step):
                    return f"{path.name} was made with another recipe ({changed})"
    return ""
