"""Turns keys into worker inputs and a worker's answers into rows and rejects."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from pipeline.caches.reader import Cache
from pipeline.caches.schema import Row
from pipeline.caches.writer import PendingRows
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner import staleness as planning
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from pipeline.runner.staleness import Inputs
from pipeline.sources.reader import UNREADABLE, Reader

PART_BYTES = 1 << 24  # a part is closed when it holds this much,
PART_SECONDS = 20.0  # or has been open this long: what a kill can cost
BATCH_BYTES = 1 << 24  # of the user's files read for one batch, if it is more than one


def work(
    stage: StageSpec, worker: Worker, collection: str, ctx: Context, inputs: Inputs, keys: Sequence[str]
) -> Iterator[PendingRows]:
    """What the worker makes of `keys`, rows and rejects, a `stage.batch` at a time."""
    for items, made, unreadable in _items(stage, collection, ctx, inputs, keys):
        batch = PendingRows.empty()
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
    except UserError:
        raise
    except Exception as e:
        which = f"keys {items[0].key} to {items[-1].key}" if len(items) > 1 else f"key {items[0].key}"
        raise UserError(f"stage {stage.name}, {which}: {type(e).__name__}: {e}; --debug shows the traceback") from e
    if len(results) != len(items):
        raise UserError(f"stage {stage.name}: {len(results)} results for {len(items)} items; expected one each")
    return results


def _items(
    stage: StageSpec,
    collection: str,
    ctx: Context,
    inputs: Inputs,
    todo: Sequence[str],
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
            keys = todo[start : start + stage.batch]
            data: list[dict] = [{} for _ in keys]
            for parent, columns in stage.parents.items():
                for d, row in zip(data, caches[parent].rows(keys, columns), strict=True):
                    d.update((f"{parent}.{name}", value) for name, value in row.items())
            made = [inputs.input_digests[key] or b"" for key in keys]
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


def _read_sources(
    inputs: Inputs, keys: Sequence[str], reader: Reader
) -> tuple[list[Item], list[bytes], list[tuple[str, str, bytes]]]:
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
