"""Reads shards in sequence, from wherever webdataset can open them: object storage, a pipe, a slow disk.

The samples are those of `pipeline.stream`; their order is random to the extent of shards and a buffer.
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
    """The shards of a collection and split that `location`/index.json lists; raises UserError when it lists none."""
    import webdataset  # only its opening of urls; its decoding would unpickle what it finds

    try:
        with webdataset.gopen(f"{location}/index.json") as f:
            found = shards.parse_index(f.read(), location)[1]
    except OSError as e:
        raise UserError(f"{location}/index.json: cannot be read ({e}); expected a folder or url of shards") from e
    chosen = [s for s in found if (s.collection, s.split) == (collection, split)]
    if not chosen:
        have = sorted({f"{s.collection}-{s.split}" for s in found})
        raise UserError(f"{location}: no samples of {collection}-{split}; there are {', '.join(have) or 'none'}")
    return chosen


@dataclass(frozen=True)
class Stream:
    """The samples of `found` as one of `readers` (ranks x workers) gets them: an equal share of them each epoch.

    Shards are shuffled by (seed, epoch), the samples in them dealt out as equal stretches, so that any number of
    readers goes with any number of shards, and mixed through a buffer of `buffer` encoded samples.
    """

    location: str
    found: list[Shard]
    seed: int = 0
    readers: int = 1
    buffer: int = 256

    def share(self, reader: int) -> tuple[int, int]:
        """Which samples, counted through the epoch's shards, are this reader's."""
        return piece(sum(s.samples for s in self.found), self.readers, reader)

    def raw(self, epoch: int, reader: int) -> Iterator[Raw]:
        """Keys and encoded members; raises UserError when a shard holds anything else than its index says."""
        shuffled = (self.found[i] for i in order(len(self.found), self.seed, epoch))
        taken = itertools.chain.from_iterable(self._stretches(shuffled, *self.share(reader)))
        return _mixed(taken, self.buffer, random.Random(f"{self.seed} {epoch} {reader}"))

    def samples(self, epoch: int, reader: int, skip: int = 0) -> Iterator[Iterator[tuple[str, Any]]]:
        """The `fields` of samples, without the first `skip`."""
        return (fields(members, key) for key, members in itertools.islice(self.raw(epoch, reader), skip, None))

    def _stretches(self, shuffled: Iterator[Shard], start: int, stop: int) -> Iterator[Iterator[Raw]]:
        at = 0
        for shard in shuffled:
            first, last = max(start - at, 0), min(stop - at, shard.samples)
            if first < last:
                yield _members(self.location, shard, first, last)
            at += shard.samples


class StreamLoader(Batches):
    """Batches like those of `Loader`, read in sequence; the order depends on ranks x workers, which a resume must keep.

    Raises: UserError when there are fewer samples than readers.
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
        total = sum(s.samples for s in stream.found)
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
    """A rank's batches from `start` on; batch k comes from its worker k modulo their number."""

    def __init__(self, stream: Stream, each: int, first: int, num_workers: int) -> None:
        self.stream, self.each, self.first, self.num_workers, self.start = stream, each, first, num_workers, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        # DataLoader always begins with its worker 0, which therefore takes the place of whoever is due.
        worker = ((info.id if info else 0) + self.start) % self.num_workers
        epoch, done = divmod(self.start, self.each * self.num_workers)
        begun = -(-(done - worker) // self.num_workers)  # batches of this epoch that this one has already given
        for number in itertools.count(epoch):
            begin, end = self.stream.share(self.first + worker)
            places = [piece(end - begin, self.each, i) for i in range(begun, self.each)]
            left = self.stream.samples(number, self.first + worker, places[0][0]) if places else iter(())
            for start, stop in places:
                yield collate(itertools.islice(left, stop - start), stop - start)
            begun = 0


def _members(location: str, shard: Shard, first: int, last: int) -> Iterator[Raw]:
    """Samples first..last of a shard, every member held against the index: no other, none missing, none in between."""
    import webdataset

    at = 0
    try:
        with webdataset.gopen(f"{location}/{shard.name}") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for i in range(last):
                sample = {}
                for member, (name, at, size) in zip(shards.MEMBERS, shards.members(shard, i), strict=True):
                    info = tar.next()
                    found = (info.name, info.size) if info is not None and info.isreg() else ("its end", 0)
                    if info is None or found != (name, size):
                        raise UserError(
                            f"{location}/{shard.name}, offset {at}: holds {found[0]!r} of {found[1]} bytes, "
                            f"but index.json says {name!r} of {size}; it was cut or changed"
                        )
                    content = tar.extractfile(info) if i >= first else None
                    if content is not None:
                        sample[member] = content.read()
                if sample:
                    yield shard.keys[i], sample
            if last == shard.samples and tar.next() is not None:
                raise UserError(f"{location}/{shard.name}: goes on after its {last} samples; it was changed")
    except (tarfile.TarError, OSError) as e:
        raise UserError(f"{location}/{shard.name}, offset {at}: cannot be read ({e})") from e


def _mixed(samples: Iterator[Raw], size: int, rng: random.Random) -> Iterator[Raw]:
    """Shuffle within a buffer of encoded samples."""
    pool: list[Raw] = []
    for sample in samples:
        pool.append(sample)
        if len(pool) >= size:
            yield pool.pop(rng.randrange(len(pool)))
    rng.shuffle(pool)
    yield from pool
