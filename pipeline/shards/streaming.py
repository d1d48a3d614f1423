"""The streaming reader of shards: it reads them in sequence from anywhere webdataset can open them.

That may be object storage, a pipe or a slow disk. The samples are those of `indexed`. The order is less random: whole
shards are shuffled, and then samples within a buffer.
"""

import itertools
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.errors import UserError
from pipeline.shards import index as shards
from pipeline.shards.batches import Batches, as_is, collate, order, piece, single_thread, steps
from pipeline.shards.index import Shard
from pipeline.shards.sample import fields

Raw = tuple[str, dict[str, bytes]]


def listed(location: str, collection: str, split: str = "train") -> list[Shard]:
    """The shards of a collection and split in `location`/index.json.

    Raises: UserError when the index cannot be read, or lists none.
    """
    import webdataset  # only for opening URLs: its decoders would unpickle members

    try:
        with webdataset.gopen(f"{location}/index.json") as f:
            indexed = shards.parse_index(f.read(), location)[1]
    except OSError as e:
        raise UserError(f"{location}/index.json: cannot be read ({e}); expected a folder or URL of shards") from e
    chosen = [s for s in indexed if (s.collection, s.split) == (collection, split)]
    if not chosen:
        existing = sorted({f"{s.collection}-{s.split}" for s in indexed})
        raise UserError(
            f"{location}: no samples of {collection}-{split}; there are "
            f"{', '.join(existing) or 'none'}; run `hypernst shards`"
        )
    return chosen


@dataclass(frozen=True)
class Stream:
    """The samples of the shards `listed`, split equally among `readers` (ranks x workers) in each epoch.

    Shards are shuffled by (seed, epoch). Their samples are divided into equal consecutive ranges, one per reader, so
    any number of readers works with any number of shards. A buffer of `buffer` encoded samples shuffles each range.
    """

    location: str
    listed: list[Shard]
    seed: int = 0
    readers: int = 1
    buffer: int = 256

    def share(self, reader: int) -> tuple[int, int]:
        """The range of this reader's samples, counted through the shards of an epoch."""
        return piece(sum(s.samples for s in self.listed), self.readers, reader)

    def raw(self, epoch: int, reader: int) -> Iterator[Raw]:
        """Yield keys and encoded members. Raises: UserError when a shard does not hold what its index says."""
        shuffled = (self.listed[i] for i in order(len(self.listed), self.seed, epoch))
        samples = itertools.chain.from_iterable(self._stretches(shuffled, *self.share(reader)))
        return _mixed(samples, self.buffer, random.Random(f"{self.seed} {epoch} {reader}"))

    def samples(self, epoch: int, reader: int, skip: int = 0) -> Iterator[Iterator[tuple[str, Any]]]:
        """Yield the `fields` of each sample, without the first `skip` samples."""
        return (fields(members, key) for key, members in itertools.islice(self.raw(epoch, reader), skip, None))

    def _stretches(self, shuffled: Iterator[Shard], start: int, stop: int) -> Iterator[Iterator[Raw]]:
        at = 0
        for shard in shuffled:
            first, last = max(start - at, 0), min(stop - at, shard.samples)
            if first < last:
                yield _members(self.location, shard, first, last)
            at += shard.samples


class StreamLoader(Batches):
    """Batches like those of `Loader`, read in sequence.

    The order depends on the numbers of ranks and workers, so a resumed run must have the same ones.
    Raises: UserError when the index lists no samples; UserError(2) when there are fewer samples than readers.
    """

    def __init__(
        self,
        location: str,
        collection: str,
        split: str,
        batch: int,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 0,
        buffer: int = 256,
        pin: bool = False,
    ) -> None:
        num_workers = max(workers, 1)
        stream = Stream(location, listed(location, collection, split), seed, ranks * num_workers, buffer)
        total = sum(s.samples for s in stream.listed)
        self._each = steps(total, batch, stream.readers, location)
        self.steps = self._each * num_workers
        self.identity = {"seed": seed, "batch": batch, "ranks": ranks, "workers": num_workers, "samples": total}
        self._dealt = _Dealt(stream, self._each, rank * num_workers, num_workers)
        self._workers, self._pin = workers, pin

    def loader(self) -> DataLoader:
        """See `Batches`."""
        self._dealt.start = self.step
        return DataLoader(
            self._dealt,
            batch_size=None,
            num_workers=self._workers,
            collate_fn=as_is,
            pin_memory=self._pin,
            worker_init_fn=single_thread,
        )


class _Dealt(IterableDataset):
    """The batches of a rank from `start` on; batch k comes from worker k modulo the number of workers."""

    def __init__(self, stream: Stream, each: int, first: int, num_workers: int) -> None:
        self.stream, self.each, self.first, self.num_workers, self.start = stream, each, first, num_workers, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        # DataLoader always begins with worker 0, so worker 0 acts as the worker whose turn it is.
        worker = ((info.id if info else 0) + self.start) % self.num_workers
        epoch, done = divmod(self.start, self.each * self.num_workers)
        begun = -(-(done - worker) // self.num_workers)  # batches of this epoch that this worker has already yielded
        for number in itertools.count(epoch):
            begin, end = self.stream.share(self.first + worker)
            places = [piece(end - begin, self.each, i) for i in range(begun, self.each)]
            samples = self.stream.samples(number, self.first + worker, places[0][0]) if places else iter(())
            for start, stop in places:
                yield collate(itertools.islice(samples, stop - start), stop - start)
            begun = 0


def _members(location: str, shard: Shard, first: int, last: int) -> Iterator[Raw]:
    """Yield the samples first..last of a shard. Every member is compared with the index: none missing, none extra."""
    import webdataset

    at = 0
    try:
        with webdataset.gopen(f"{location}/{shard.name}") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for i in range(last):
                sample = {}
                for member, (name, at, size) in zip(shards.MEMBERS, shards.members(shard, i), strict=True):
                    info = tar.next()
                    actual = (info.name, info.size) if info is not None and info.isreg() else ("its end", 0)
                    if info is None or actual != (name, size):
                        raise UserError(
                            f"{location}/{shard.name}, offset {at}: holds {actual[0]!r} of {actual[1]} bytes, "
                            f"but index.json says {name!r} of {size}; it was cut or changed: run `hypernst shards`"
                        )
                    content = tar.extractfile(info) if i >= first else None
                    if content is not None:
                        sample[member] = content.read()
                if sample:
                    yield shard.keys[i], sample
            if last == shard.samples and tar.next() is not None:
                raise UserError(f"{location}/{shard.name}: has more than its {last} samples; run `hypernst shards`")
    except (tarfile.TarError, OSError) as e:
        raise UserError(f"{location}/{shard.name}, offset {at}: cannot be read ({e})") from e


def _mixed(samples: Iterator[Raw], size: int, rng: random.Random) -> Iterator[Raw]:
    """Shuffle samples within a buffer of `size`."""
    pool: list[Raw] = []
    for sample in samples:
        pool.append(sample)
        if len(pool) >= size:
            yield pool.pop(rng.randrange(len(pool)))
    rng.shuffle(pool)
    yield from pool
