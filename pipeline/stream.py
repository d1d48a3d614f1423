"""Reads shards back: an indexed reader for local disks, a streaming one for remote or huge sets; same samples.

The indexed reader's order is exact: step s of the run is always the same batch for the same seed, batch size and number
of ranks, whatever the number of workers, so resuming means continuing at a step.
"""

import io
import itertools
import json
import mmap
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import shards
from pipeline.errors import Fault

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Decoded = dict[str, Any]
REPAIR = "run `hypernst verify --repair`, then `hypernst shards`"


def decode(sample: Mapping[str, bytes]) -> Decoded:
    """A sample's members as arrays: key, image u8 [H,W,3], region u8 [H,W], latent f32 [L,D], codes f32 [4,256], meta.

    Raises: Fault when a member is missing or not what its name says.
    """
    import cv2

    try:
        meta = json.loads(sample["json"])
        image = cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_COLOR)
        region = cv2.imdecode(np.frombuffer(sample["region.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        latent = np.lib.format.read_array(io.BytesIO(sample["latent.npy"]), allow_pickle=False)
        codes = np.lib.format.read_array(io.BytesIO(sample["codes.npy"]), allow_pickle=False)
        if image is None or region is None:
            raise ValueError("a picture in it does not decode")
        return {"key": meta["key"], "image": cv2.cvtColor(image, cv2.COLOR_BGR2RGB), "region": region, "latent": latent,
                "codes": codes, "meta": meta}
    except (KeyError, ValueError, cv2.error) as e:
        raise Fault(f"sample {sample.get('__key__', '')!r}: damaged ({e}); {REPAIR}") from e


class Samples:
    """The samples of one collection and split, by number, read through mmap; opened per process, when first needed.

    Raises: Fault when the index or a tar is missing or cut, or there is no such sample set.
    """

    def __init__(self, folder: Path, collection: str, split: str = "train") -> None:
        self.folder = folder
        _, listed = shards.read_index(folder)
        self.shards = [s for s in listed if (s.collection, s.split) == (collection, split)]
        self._where = [(n, i) for n, s in enumerate(self.shards) for i in range(s.samples)]
        self._maps: dict[int, mmap.mmap] = {}
        if not self._where:
            have = sorted({f"{s.collection}-{s.split}" for s in listed})
            raise Fault(f"{folder}: no samples of {collection}-{split}; there are {', '.join(have) or 'none'}")

    def __len__(self) -> int:
        return len(self._where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def keys(self) -> list[str]:
        """All keys, in the order of the tars."""
        return [key for shard in self.shards for key in shard.keys]

    def raw(self, number: int) -> dict[str, bytes]:
        """The encoded members of a sample; raises Fault when the tar holds another name at that place."""
        n, i = self._where[number]
        shard = self.shards[n]
        data = self._map(n)
        out = {}
        for member, (name, at, size) in zip(shards.MEMBERS, shards.members(shard, i), strict=True):
            found = data[at:at + 100].rstrip(b"\0")
            if found != name.encode():
                raise Fault(f"{self.folder / shard.name}, offset {at}: holds {found[:40]!r}, "
                            f"but index.json says {name!r}; {REPAIR}")
            out[member] = data[at + shards.BLOCK:at + shards.BLOCK + size]
        return out

    def __getitem__(self, number: int) -> Decoded:
        return decode(self.raw(number))

    def _map(self, n: int) -> mmap.mmap:
        if n not in self._maps:
            with open(self.folder / self.shards[n].name, "rb") as f:
                self._maps[n] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[n]


class Loader:
    """Endless batches of `samples` for one rank: every epoch each sample once, in an order drawn from (seed, epoch).

    All ranks get the same number of batches an epoch, of `batch` samples or one or so fewer. A batch is a dict: key and
    meta lists, the rest torch tensors as in `decode` with N in front (uint8 stays uint8: normalise on the device).
    `step` counts the batches handed out; set it through `restore` to go on exactly where another loader stopped.
    """

    def __init__(self, samples: Samples, batch: int, seed: int, *, rank: int = 0, ranks: int = 1, workers: int = 0,
                 pin: bool = False) -> None:
        if len(samples) < ranks:
            raise Fault(f"{samples.folder}: {len(samples)} samples for {ranks} ranks; expected at least one each", 2)
        self.steps = -(-len(samples) // (batch * ranks))  # an epoch
        self.step = 0
        self._identity = {"seed": seed, "batch": batch, "ranks": ranks, "samples": len(samples)}
        self._batches = _Batches(samples, seed, self.steps, rank, ranks)
        self._workers, self._pin = workers, pin

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader():
            self.step += 1
            yield batch

    def epoch(self) -> Iterator[dict[str, Any]]:
        """What is left of the current epoch."""
        return itertools.islice(iter(self), self.steps - self.step % self.steps)

    def state(self) -> dict[str, int]:
        """What `restore` needs, as JSON values."""
        return {**self._identity, "step": self.step}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on after `state`; raises Fault when it is from other samples or settings."""
        other = {k: v for k, v in state.items() if k != "step"}
        if other != self._identity:
            raise Fault(f"cannot resume: the checkpoint's data were {other}, now {self._identity}; start anew", 2)
        self.step = state["step"]

    def _loader(self) -> "DataLoader":
        from torch.utils.data import DataLoader

        # A batch is the unit handed over: one sample at a time costs more than decoding it.
        batches: Any = self._batches  # map-style, but endless
        return DataLoader(batches, batch_size=None, sampler=_From(self.step), num_workers=self._workers,
                          pin_memory=self._pin, worker_init_fn=_single_thread)


class _From:
    """The steps from `start` on, for ever."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


class _Batches:
    """Batch number `step` of a run, as a map-style dataset."""

    def __init__(self, samples: Samples, seed: int, steps: int, rank: int, ranks: int) -> None:
        self.samples, self.seed, self.steps, self.rank, self.ranks = samples, seed, steps, rank, ranks
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, k = divmod(step, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, order(len(self.samples), self.seed, epoch))
        numbers = np.array_split(self._order[1], self.steps * self.ranks)[k * self.ranks + self.rank]
        return collate([self.samples[int(n)] for n in numbers])


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The epoch's permutation of 0..count-1."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def collate(samples: Sequence[Decoded]) -> dict[str, Any]:
    """Samples as one batch: tensors with N in front; key and meta stay lists."""
    import torch

    stacked = {name: torch.from_numpy(np.stack([s[name] for s in samples]))
               for name in ("image", "region", "latent", "codes")}
    return {"key": [s["key"] for s in samples], "meta": [s["meta"] for s in samples], **stacked}


def stream(location: str, collection: str, split: str = "train", *, seed: int = 0, epoch: int = 0, reader: int = 0,
           readers: int = 1, buffer: int = 256) -> Iterator[Decoded]:
    """One epoch's samples from shards at a folder or any address webdataset can open, decoded.

    Shards are shuffled by (seed, epoch), dealt out to the `readers` (ranks x workers), and mixed through a buffer.
    Raises: Fault when there are fewer shards than readers, or a shard yields other keys than its index says.
    """
    import webdataset  # only its opening and untarring; its own decoding would unpickle what it finds

    with webdataset.gopen(f"{location}/index.json") as f:
        _, listed = shards.parse_index(f.read(), location)
    chosen = [s for s in listed if (s.collection, s.split) == (collection, split)]
    if len(chosen) < readers:
        raise Fault(f"{location}: {len(chosen)} shards of {collection}-{split} for {readers} readers (ranks x "
                    "workers); use fewer workers or smaller shards (profile key shards.max_mb)", 2)
    mine = [chosen[i] for i in order(len(chosen), seed, epoch)][reader::readers]
    rng = random.Random(f"{seed} {epoch} {reader}")
    for sample in _mixed(itertools.chain.from_iterable(_members(location, s) for s in mine), buffer, rng):
        yield decode(sample)


def _members(location: str, shard: shards.Shard) -> Iterator[dict[str, bytes]]:
    """The raw samples of one shard; a tar cut between members reads as a shorter one, so its keys are counted."""
    import webdataset

    dataset = webdataset.WebDataset([f"{location}/{shard.name}"], shardshuffle=False, nodesplitter=None,
                                    workersplitter=None)
    count = 0
    try:
        for sample in dataset:
            expected = shard.keys[count] if count < shard.samples else "its end"
            if sample["__key__"] != expected:
                raise Fault(f"{location}/{shard.name}: holds {sample['__key__']!r}, but index.json says {expected!r}")
            count += 1
            yield sample
    except (tarfile.TarError, OSError, ValueError) as e:
        raise Fault(f"{location}/{shard.name}: cannot be read after {count} of {shard.samples} samples ({e})") from e
    if count != shard.samples:
        raise Fault(f"{location}/{shard.name}: {count} samples, but index.json says {shard.samples}; it was cut")


def _mixed(samples: Iterator[dict[str, bytes]], size: int, rng: random.Random) -> Iterator[dict[str, bytes]]:
    """Shuffle within a buffer of encoded samples."""
    pool: list[dict[str, bytes]] = []
    for sample in samples:
        pool.append(sample)
        if len(pool) >= size:
            yield pool.pop(rng.randrange(len(pool)))
    rng.shuffle(pool)
    yield from pool


def _single_thread(_: int) -> None:
    """In a worker: the other cores have workers of their own."""
    import cv2

    cv2.setNumThreads(0)
