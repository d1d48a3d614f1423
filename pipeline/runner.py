"""Runs a stage over a collection: resumes by key, remembers rejects, writes caches that survive being killed."""

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pipeline import device, parts
from pipeline import plan as planning
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import Fault, printable
from pipeline.files import write_atomic
from pipeline.lock import lock, sweep
from pipeline.parts import Batch
from pipeline.plan import Inputs, Plan
from pipeline.report import Progress, say
from pipeline.sources import UNREADABLE, Reader
from pipeline.spec import Column, Item, Reject, Row, StageSpec, Worker
from pipeline.store import Cache

__all__ = ["Column", "Item", "Reject", "Row", "StageSpec", "Summary", "Worker", "run_collections", "run_stage"]

PART_BYTES = 1 << 24  # a part is closed when it holds this much,
PART_SECONDS = 20.0  # or has been open this long: what a kill can cost
BATCH_BYTES = 1 << 24  # of the user's files read for one batch, if it is more than one
PASSES = 3  # a file may change while it is read, or prove the same as one read later


@dataclass(frozen=True)
class Summary:
    """What a stage did to a collection; `inputs == cached + rejected` once it is done, `computed` of them just now."""

    stage: str
    collection: str
    inputs: int
    cached: int
    rejected: int
    computed: int

    def __str__(self) -> str:
        return (f"{self.stage} {self.collection}: {self.inputs} inputs = {self.cached} cached + "
                f"{self.rejected} rejected ({self.computed} computed now)")

    def status(self, max_rejects: int | None) -> int:
        """Exit status: 3 when more were rejected than allowed, else 0."""
        return 3 if max_rejects is not None and self.rejected > max_rejects else 0


def run_collections(stage: StageSpec, ctx: Context, collections: Sequence[str] = COLLECTIONS) -> int:
    """`run_stage` for each collection; the worst exit status."""
    return max(run_stage(stage, name, ctx).status(ctx.max_rejects) for name in collections)


def run_stage(stage: StageSpec, collection: str, ctx: Context, only: Collection[str] | None = None) -> Summary:
    """Bring cache/<collection>/<stage.output>.h5 up to date, computing only what is missing or stale, and `only` these.

    Raises: Fault when a parent cache is missing (2), the cache is in use by another run (1), or the worker fails (1).
    """
    with lock(ctx.cache, f"{stage.name} ({collection})"):
        plan = planning.survey(stage, collection, ctx, retry=ctx.retry_rejected, only=only)
        todo = len(plan.todo)
        for _ in range(PASSES):
            if plan.todo:
                _compute(stage, collection, ctx, plan)
                del plan  # two of them would be twice the keys
                plan = planning.survey(stage, collection, ctx, only=only)
        if plan.todo:
            raise Fault(f"stage {stage.name}: {len(plan.todo)} inputs of {collection} changed while it ran, "
                        f"the first is {plan.todo[0]!r}; run it again")
        if plan.dirty:
            parts.compact(plan.path, plan.files, plan.entries, stage.columns, width(stage),
                          planning.provenance(stage, ctx, plan.inputs))
        _clear_parts(plan)
        plan.inputs.fingerprints.save()
        _list_rejects(stage, collection, ctx, plan)
    summary = Summary(stage.name, collection, len(plan.wanted), plan.cached, plan.rejected, todo)
    say(str(summary))
    return summary


def _compute(stage: StageSpec, collection: str, ctx: Context, plan: Plan) -> None:
    """Run the worker over `plan.todo` and write what it makes as parts; what is done when it fails stays done."""
    sweep(parts.folder(plan.path))
    progress = Progress(f"{stage.name} {collection}", len(plan.todo))
    compute = _engine(ctx.engine)
    refused = _refused(plan)
    plan.todo = [key for key in plan.todo if key not in plan.inputs.refused]
    try:
        if len(refused):
            parts.write_part(plan.path, refused, stage.columns, width(stage),
                             planning.provenance(stage, ctx, plan.inputs))
            progress.add(len(refused), len(refused))
        if plan.todo:
            compute(stage, collection, replace(ctx, device=device.resolve(ctx.device)), plan, progress)
    finally:
        progress.close()
        plan.inputs.fingerprints.save()


def _refused(plan: Plan) -> Batch:
    """The rejects among what is to do that need no computing."""
    batch, inputs = Batch.empty(), plan.inputs
    batch.rejects += [(k, inputs.refused[k], inputs.made[k] or b"") for k in plan.todo if k in inputs.refused]
    return batch


def _engine(name: str) -> Callable[[StageSpec, str, Context, Plan, Progress], None]:
    """What computes `plan.todo` into parts: this process, or Ray's actors."""
    if name == "local":
        return _here
    if name == "ray":
        from pipeline.engine_ray import compute

        return compute
    raise Fault(f"engine {name!r} is unknown; expected 'local' or 'ray'", 2)


def _here(stage: StageSpec, collection: str, ctx: Context, plan: Plan, progress: Progress) -> None:
    provenance = planning.provenance(stage, ctx, plan.inputs)
    batch = Batch.empty()
    opened = time.monotonic()
    try:
        for made in work(stage, stage.open(ctx), collection, ctx, plan.inputs, plan.todo):
            batch.extend(made)
            progress.add(len(made), len(made.rejects))
            if batch.nbytes > PART_BYTES or time.monotonic() - opened > PART_SECONDS:
                parts.write_part(plan.path, batch, stage.columns, width(stage), provenance)
                plan.inputs.fingerprints.save()
                batch, opened = Batch.empty(), time.monotonic()
    finally:
        if len(batch):
            parts.write_part(plan.path, batch, stage.columns, width(stage), provenance)


def work(stage: StageSpec, worker: Worker, collection: str, ctx: Context, inputs: Inputs,
         keys: Sequence[str]) -> Iterator[Batch]:
    """What the worker makes of `keys`, rows and rejects, a `stage.batch` at a time."""
    for items, made, unreadable in _items(stage, collection, ctx, inputs, keys):
        batch = Batch.empty()
        batch.rejects += unreadable
        for item, of, result in zip(items, made, _results(stage, worker, items), strict=True):
            if isinstance(result, Reject):
                batch.rejects.append((item.key, result.reason, of))
            else:
                batch.add(item.key, stage.check(result, item.key), of)
        yield batch


def _results(stage: StageSpec, worker: Worker, items: Sequence[Item]) -> Sequence[Row | Reject]:
    if not items:
        return []
    try:
        results = worker(items)
    except Fault:
        raise
    except Exception as e:
        which = f"keys {items[0].key} to {items[-1].key}" if len(items) > 1 else f"key {items[0].key}"
        raise Fault(f"stage {stage.name}, {which}: {type(e).__name__}: {e}; --debug shows the traceback") from e
    if len(results) != len(items):
        raise Fault(f"stage {stage.name}: {len(results)} results for {len(items)} items; expected one each")
    return results


def _items(stage: StageSpec, collection: str, ctx: Context, inputs: Inputs, todo: Sequence[str],
           ) -> Iterator[tuple[list[Item], list[bytes], list[tuple[str, str, bytes]]]]:
    """Batches of items, the digests of their inputs, and the files that could not be read."""
    with ExitStack() as stack:
        caches = {p: stack.enter_context(Cache(ctx.file(collection, p))) for p in stage.parents}
        reader = Reader()
        if not stage.parents:
            for some in _batches([(key, inputs.sources[key].size) for key in todo], stage.batch):
                yield _read_sources(inputs, some, reader)
            return
        for start in range(0, len(todo), stage.batch):
            keys = todo[start:start + stage.batch]
            data: list[dict] = [{} for _ in keys]
            for parent, columns in stage.parents.items():
                for d, row in zip(data, caches[parent].rows(keys, columns), strict=True):
                    d.update((f"{parent}.{name}", value) for name, value in row.items())
            made = [inputs.made[key] or b"" for key in keys]
            yield [Item(key, d) for key, d in zip(keys, data, strict=True)], made, []


def _batches(sizes: Sequence[tuple[str, int]], most: int) -> Iterator[list[str]]:
    """Keys in their order, at most so many and BATCH_BYTES of files at once, but always one."""
    keys: list[str] = []
    held = 0
    for key, size in sizes:
        if keys and (len(keys) == most or held + size > BATCH_BYTES):
            yield keys
            keys, held = [], 0
        keys.append(key)
        held += size
    if keys:
        yield keys


def _read_sources(inputs: Inputs, keys: Sequence[str], reader: Reader) -> tuple[
        list[Item], list[bytes], list[tuple[str, str, bytes]]]:
    items, made, refused = [], [], []
    for key in keys:
        source = inputs.sources[key]
        try:
            data = reader.read(source)
        except OSError as e:
            refused.append((key, f"cannot be read: {e.strerror}", UNREADABLE))
            continue
        content = inputs.fingerprints.put(source, data)
        if why := inputs.duplicate(key, content):
            refused.append((key, why, planning.refusal(content, why)))
            continue
        items.append(Item(key, {"source": data}, source.path))
        made.append(content)
    return items, made, refused


def width(stage: StageSpec) -> int:
    """How many inputs a row has."""
    return max(1, len(stage.parents))


def _clear_parts(plan: Plan) -> None:
    """Remove the parts, now that the compacted file holds their rows."""
    folder = parts.folder(plan.path)
    if folder.exists():
        sweep(folder)
        for part in parts.listed(plan.path):
            part.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    sweep(plan.path.parent)


def _list_rejects(stage: StageSpec, collection: str, ctx: Context, plan: Plan) -> None:
    """Bring this stage's lines of rejects.jsonl up to date; the cache file itself is what a rerun goes by."""
    path = ctx.cache / collection / "rejects.jsonl"
    old = path.read_bytes() if path.exists() else b""
    lines = [line for line in old.decode().splitlines() if json.loads(line)["stage"] != stage.name]
    lines += [json.dumps({"key": key, "stage": stage.name, "reason": printable(entry.reason)}, ensure_ascii=False)
              for key, entry in sorted(plan.entries.items()) if entry.row < 0]
    new = "".join(f"{line}\n" for line in lines).encode()
    if new != old:
        write_atomic(path, new)
