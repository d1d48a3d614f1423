"""The Ray engine: runs a stage on Ray actors, one per GPU or per core.

The actors read and write the cache folder on the shared storage themselves. Only keys, digests and counts pass through
the driver. When an actor dies, its successor recomputes the part under the same number.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.caches import writer as parts
from pipeline.caches.digests import Index
from pipeline.caches.writer import PendingRows
from pipeline.context import Context
from pipeline.errors import UserError, interrupts_for_us
from pipeline.progress import Progress
from pipeline.runner import compute as shared
from pipeline.runner import staleness as planning
from pipeline.runner.inputs import Inputs
from pipeline.runner.spec import StageSpec, Worker
from pipeline.runner.staleness import Plan
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.reader import Source

RETRIES = 3  # most retries of one part: some input may kill every actor that takes it


@dataclasses.dataclass(frozen=True)
class PartResult:
    """What an actor reports about a part that it has written."""

    keys: int
    rejects: int
    nbytes: int
    seconds: float
    news: dict[str, list]  # fingerprints of the files read


class StageActor:
    """A Ray actor that computes parts.

    It opens the stage with its first part, so that a failure to open is reported like any other failure.
    """

    def __init__(self, stage: StageSpec, collection: str, ctx: Context, parents: dict[str, str]) -> None:
        self.stage, self.collection, self.ctx, self.parents = stage, collection, ctx, parents
        self.worker: Worker | None = None

    def part(self, number: int, keys: Sequence[str], input_digests: dict[str, bytes], sources: dict) -> PartResult:
        """Compute `keys` and write them as part `number`."""
        self.worker = self.worker or self.stage.open(self.ctx)
        start = time.monotonic()
        path = self.ctx.file(self.collection, self.stage.output)
        inputs = Inputs(Index.of(input_digests), sources, self.parents, Fingerprints(None))
        batch = PendingRows.empty()
        for done in shared.work(self.stage, self.worker, self.collection, self.ctx, inputs, keys):
            batch.extend(done)
        parts.write_part(path, batch, planning.layout(self.stage, self.ctx, inputs), number)
        seconds = time.monotonic() - start
        return PartResult(len(keys), len(batch.rejects), batch.nbytes, seconds, inputs.fingerprints.news)


def compute(stage: StageSpec, collection: str, ctx: Context, plan: Plan, progress: Progress) -> None:
    """Compute `plan.todo` into parts. Whatever happens, the parts written so far stay.

    Raises: UserError when the worker fails, or one part has killed RETRIES + 1 actors; UserError(2) without Ray.
    """
    ray = _ray()
    if not ray.is_initialized():
        with interrupts_for_us():
            ray.init(logging_level="warning", log_to_driver=False)
    gpu = ctx.device.startswith("cuda")
    ctx = _absolute(ctx)
    num_workers = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0)))
    actor = ray.remote(num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=RETRIES)(StageActor)
    idle: list[Any] = [
        actor.remote(stage, collection, ctx, plan.inputs.parents)
        for _ in range(min(num_workers, -(-len(plan.todo) // stage.batch)))
    ]
    actors = list(idle)
    busy: dict[Any, Any] = {}
    at, number, size = 0, parts.next_number(plan.path), stage.batch
    try:
        while busy or at < len(plan.todo):
            while idle and at < len(plan.todo):
                keys = plan.todo[at : at + size]
                sources = {k: _absolute_source(plan.inputs.sources[k]) for k in keys if k in plan.inputs.sources}
                handle = idle.pop()
                input_digests = {k: plan.inputs.input_digests[k] for k in keys}
                busy[handle.part.remote(number, keys, input_digests, sources)] = handle
                at, number = at + len(keys), number + 1
            for task in ray.wait(list(busy))[0]:
                idle.append(busy.pop(task))
                done = _result(task, stage)
                plan.inputs.fingerprints.learn(done.news)
                plan.inputs.fingerprints.note()
                progress.add(done.keys, done.rejects)
                size = _next_size(done, stage.batch, -(-(len(plan.todo) - at) // (2 * len(actors))))
    finally:
        for handle in actors:
            ray.kill(handle)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "ENGINE=ray: Ray is not installed; run `pip install -c constraints.txt -e '.[ray]'`, or leave ENGINE= out",
            2,
        ) from error
    return ray


def _result(task: Any, stage: StageSpec) -> PartResult:
    ray = _ray()
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise (
            error.cause if isinstance(error.cause, UserError) else UserError(f"stage {stage.name}: {error.cause}")
        ) from error
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"stage {stage.name}: an actor could not start, or {RETRIES + 1} actors died on the same part ({why}); "
            "run it again with ENGINE=local to see why"
        ) from error


def _next_size(done: PartResult, least: int, most: int) -> int:
    """How many keys the next part takes: as large as a part of the local engine, with some left for every actor."""
    by_time = shared.PART_SECONDS / max(done.seconds / done.keys, 1e-9)
    by_bytes = shared.PART_BYTES / max(done.nbytes / done.keys, 1)
    return max(least, int(min(by_time, by_bytes, most)))


def _absolute(ctx: Context) -> Context:
    """The context for an actor: absolute folders, as its working folder may differ; it sees one GPU only."""
    folders = {name: getattr(ctx, name).absolute() for name in ("cache", "content", "style", "run")}
    return dataclasses.replace(ctx, **folders, device="cuda" if ctx.device.startswith("cuda") else ctx.device)


def _absolute_source(source: Source) -> Source:
    return source._replace(file=str(Path(source.file).absolute()))
