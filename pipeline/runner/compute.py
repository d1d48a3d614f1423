"""Turns keys into worker inputs, and the results of a worker into rows and rejects."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from pipeline.caches.reader import Cache
from pipeline.caches.schema import Row
from pipeline.caches.writer import PendingRows
from pipeline.context import Context
from pipeline.errors import NO_MEMORY, UserError, is_out_of_memory
from pipeline.runner.inputs import Inputs, refusal
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from pipeline.sources.reader import UNREADABLE, Reader

PART_BYTES = 1 << 24  # a part is written when it holds this many bytes,
PART_SECONDS = 20.0  # or after this many seconds: the most work that a kill can lose
BATCH_BYTES = 1 << 24  # most bytes of the user's files in one batch of several files


def work(
    stage: StageSpec, worker: Worker, collection: str, ctx: Context, inputs: Inputs, keys: Sequence[str]
) -> Iterator[PendingRows]:
    """Yield the rows and rejects that the worker makes of `keys`, one batch of `stage.batch` keys at a time.

    Raises: UserError when the worker fails, or its results do not fit the stage.
    """
    for items, input_digests, unreadable in _items(stage, collection, ctx, inputs, keys):
        batch = PendingRows.empty()
        batch.rejects += unreadable
        for item, input_digest, result in zip(items, input_digests, _results(stage, worker, items), strict=True):
            if isinstance(result, Reject):
                batch.rejects.append((item.key, result.reason, input_digest))
            else:
                batch.add(item.key, stage.check(result, item.key), input_digest)
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
        what = NO_MEMORY if is_out_of_memory(e) else f"{type(e).__name__}: {e}; --debug shows the traceback"
        raise UserError(f"stage {stage.name}, {which}: {what}") from e
    if len(results) != len(items):
        raise UserError(f"stage {stage.name}: {len(results)} results for {len(items)} items; expected one per item")
    return results


def _items(
    stage: StageSpec,
    collection: str,
    ctx: Context,
    inputs: Inputs,
    todo: Sequence[str],
) -> Iterator[tuple[list[Item], list[bytes], list[tuple[str, str, bytes]]]]:
    """Yield batches: the items, the digests of their inputs, and rejects for files that cannot be read."""
    with ExitStack() as stack:
        caches = {p: stack.enter_context(Cache(ctx.file(collection, p))) for p in stage.parents}
        reader = Reader()
        if not stage.parents and not stage.numbered:
            for keys in _batches([(key, inputs.sources[key].size) for key in todo], stage.batch):
                yield _read_sources(inputs, keys, reader)
            return
        for start in range(0, len(todo), stage.batch):
            keys = list(todo[start : start + stage.batch])
            data: list[dict] = [{} for _ in keys]
            for parent, columns in stage.parents.items():
                for d, row in zip(data, caches[parent].rows(keys, columns), strict=True):
                    d.update((f"{parent}.{name}", value) for name, value in row.items())
            input_digests = [inputs.input_digests[key] for key in keys]
            yield [Item(key, d) for key, d in zip(keys, data, strict=True)], input_digests, []


def _batches(sizes: Sequence[tuple[str, int]], most: int) -> Iterator[list[str]]:
    """Yield batches of keys in order: at most `most` keys and BATCH_BYTES of files each, but at least one key."""
    keys: list[str] = []
    total = 0
    for key, size in sizes:
        if keys and (len(keys) == most or total + size > BATCH_BYTES):
            yield keys
            keys, total = [], 0
        keys.append(key)
        total += size
    if keys:
        yield keys


def _read_sources(
    inputs: Inputs, keys: Sequence[str], reader: Reader
) -> tuple[list[Item], list[bytes], list[tuple[str, str, bytes]]]:
    """Read the files of `keys`: items, their input digests, and rejects."""
    items, input_digests, refused = [], [], []
    for key in keys:
        source = inputs.sources[key]
        try:
            data = reader.read(source)
        except OSError as e:
            refused.append((key, f"cannot be read: {e.strerror}", UNREADABLE))
            continue
        content = inputs.fingerprints.put(source, data)
        if why := inputs.duplicate(key, content):
            refused.append((key, why, refusal(content, why)))
            continue
        items.append(Item(key, {"source": data}, source.path))
        input_digests.append(content)
    return items, input_digests, refused
