"""Runs a stage over a collection: resumes by key, records rejects, and writes caches that survive a kill."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import device
from pipeline.caches import volumes
from pipeline.caches import writer as parts
from pipeline.caches.merge import compact
from pipeline.caches.writer import PendingRows
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError, printable
from pipeline.files import read_lines, read_plain, sweep, write_atomic
from pipeline.locks import lock_if_writable
from pipeline.progress import Progress, say
from pipeline.runner import engine_local
from pipeline.runner import staleness as planning
from pipeline.runner.spec import StageSpec
from pipeline.runner.staleness import Plan

PASSES = 3  # a file may change during the run, or turn out to be a duplicate of a later one


@dataclass(frozen=True)
class Summary:
    """The result of a stage on a collection: `inputs == cached + rejected`; `computed` of them in this run.

    `renamed` of them have another name than before and the same content.
    """

    stage: str
    collection: str
    inputs: int
    cached: int
    rejected: int
    computed: int
    renamed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.stage} {self.collection}: {self.inputs} inputs = {self.cached} cached + "
            f"{self.rejected} rejected ({self.computed} computed now{f', {self.renamed} renamed' * bool(self.renamed)})"
        )

    def status(self, max_rejects: int | None) -> int:
        """The exit status: 3 when more than `max_rejects` were rejected, else 0."""
        return 3 if max_rejects is not None and self.rejected > max_rejects else 0


def run_collections(stage: StageSpec, ctx: Context, collections: Sequence[str] = COLLECTIONS) -> int:
    """Run the stage on each collection; return the highest exit status. Raises: UserError as `run_stage`."""
    return max(run_stage(stage, name, ctx).status(ctx.max_rejects) for name in collections)


def run_stage(stage: StageSpec, collection: str, ctx: Context, only: Collection[str] | None = None) -> Summary:
    """Bring cache/<collection>/<stage.output>.h5 up to date: compute only rows that are missing or stale.

    With `only`, no other keys are computed. Where nothing may be written it ends well if nothing is to do.
    Raises: UserError(2) when a parent cache is missing; UserError when another run uses the cache, or the worker fails.
    """
    with lock_if_writable(ctx.cache, f"{stage.name} ({collection})") as unwritable:
        plan = planning.survey(stage, collection, ctx, retry=ctx.retry_rejected, only=only)
        todo = len(plan.todo)
        if unwritable and (todo or plan.dirty):
            raise unwritable
        if not unwritable:
            _clear_volumes(plan)
        for _ in range(PASSES):
            if plan.todo:
                _compute(stage, collection, ctx, plan)
                plan = planning.survey_again(plan, stage, collection, ctx, only)
        if plan.todo:
            raise UserError(
                f"stage {stage.name}: {len(plan.todo)} inputs of {collection} changed while it ran, "
                f"the first is {plan.todo[0]!r}; run it again"
            )
        if not unwritable:  # before the cache says that all is done
            _list_rejects(stage, collection, ctx, plan)
        if plan.dirty:
            layout = planning.layout(stage, ctx, plan.inputs)
            compact(plan.path, plan.files, plan.entries, layout, plan.renamed, plan.kept)
        if not unwritable:
            _clear_parts(plan)
            plan.inputs.fingerprints.save()
    summary = Summary(stage.name, collection, plan.wanted, plan.cached, plan.rejected, todo, len(plan.renamed))
    say(str(summary))
    plan.inputs.left.tell(f"{stage.name} {collection}")
    return summary


def _compute(stage: StageSpec, collection: str, ctx: Context, plan: Plan) -> None:
    """Run the worker on `plan.todo` and write its rows as parts; after a failure these stay."""
    sweep(parts.folder(plan.path))
    progress = Progress(f"{stage.name} {collection}", len(plan.todo))
    compute = _engine(ctx.engine)
    refused = _refused(plan)
    plan.todo = [key for key in plan.todo if key not in plan.inputs.refused]
    try:
        if len(refused):
            parts.write_part(plan.path, refused, planning.layout(stage, ctx, plan.inputs))
            progress.add(len(refused), len(refused))
        if plan.todo:
            compute(stage, collection, replace(ctx, device=device.resolve(ctx.device)), plan, progress)
    finally:
        progress.close()
        plan.inputs.fingerprints.save()


def _refused(plan: Plan) -> PendingRows:
    """The keys in `plan.todo` that are rejected without computing."""
    batch, inputs = PendingRows.empty(), plan.inputs
    batch.rejects += [(k, inputs.refused[k], inputs.input_digests[k]) for k in plan.todo if k in inputs.refused]
    return batch


def _engine(name: str) -> Callable[[StageSpec, str, Context, Plan, Progress], None]:
    """The function that computes `plan.todo` into parts: in this process, or on Ray."""
    if name == "local":
        return engine_local.compute
    if name == "ray":
        from pipeline.runner import engine_ray

        return engine_ray.compute
    raise UserError(f"engine {name!r} is unknown; expected 'local' or 'ray'", 2)


def _clear_parts(plan: Plan) -> None:
    """Remove the parts: the cache now holds their rows."""
    _clear(parts.folder(plan.path), parts.listed(plan.path))
    sweep(plan.path.parent)


def _clear_volumes(plan: Plan) -> None:
    """Remove the volumes that the last run merged, which readers may have needed, and what a killed one left."""
    _clear(volumes.folder(plan.path), volumes.unlisted(plan.path, plan.files))


def _clear(folder: Path, files: Sequence[Path]) -> None:
    """Remove files from a folder, and the folder if it is empty then."""
    if folder.exists():
        sweep(folder)
        for file in files:
            file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _list_rejects(stage: StageSpec, collection: str, ctx: Context, plan: Plan) -> None:
    """Update this stage's lines in rejects.jsonl, which is for people: later runs read the cache file."""
    path = ctx.cache / collection / "rejects.jsonl"
    rows = [row for row in read_lines(path) if row.get("stage") != stage.name]
    rows += [
        {"key": key, "stage": stage.name, "reason": printable(entry.reason)}
        for key, entry in sorted(plan.rejects.items())
    ]
    new = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
    if new != (read_plain(path) if path.exists() else b""):
        write_atomic(path, new)
