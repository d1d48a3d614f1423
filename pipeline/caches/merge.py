"""Makes a cache of rows in parts and volumes: writes what is new, and leaves the volumes that stay as they are."""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np

from pipeline.caches import volumes
from pipeline.caches.digests import file_digest, labels_digest
from pipeline.caches.entry import write_entry
from pipeline.caches.output import Output, new_file
from pipeline.caches.reader import Cache, joined
from pipeline.caches.schema import VARYING, Entry, Layout
from pipeline.caches.volume import Head, OpenVolumes, Volume, filters, stretches
from pipeline.caches.writer import KEY, create, put, put_rejects, row_bytes, undigest
from pipeline.errors import UserError
from pipeline.files import fsync, make_folder, replacing

BLOCK = 1 << 21  # bytes copied at a time
OPEN = 3 * volumes.FAN  # most files open at once: as many as are merged; HDF5 keeps a few MB of each


def compact(
    path: Path,
    files: Sequence[Path],
    entries: Mapping[str, Entry],
    layout: Layout,
    labels: Mapping[str, str] | None = None,
    kept: Mapping[int, Head] = MappingProxyType({}),
) -> None:
    """Make the cache file `path` hold `entries`, which are rows and rejects of `files`, and all that is in `kept`.

    `kept` are the volumes of the cache among those files, by number, or its plain file, that stay, but for small ones,
    which are merged; `entries` need not tell what they hold. The rest is written sorted by key. Files that are no
    longer listed are not removed: readers may have them open. `labels` are the new labels of renamed rows, by key.
    Raises: UserError when the disk is full, or fails; the cache is as it was then.
    """
    entries = {key: entry for key, entry in entries.items() if entry.file not in kept}
    merged = volumes.to_merge({number: len(head) for number, head in kept.items()}, len(entries))
    stay = sorted(set(kept) - merged)
    for number in merged:
        with Volume(files[number]) as volume:
            entries |= volume.entries(number)
    fresh = sorted(entries)
    labels = labels or {}
    if not stay and len(fresh) <= volumes.FULL:
        _write(path, files, {key: entries[key] for key in fresh}, layout, labels)
        return
    needed = files if path.exists() else [files[n] for n in {*stay, *(entry.file for entry in entries.values())}]
    number = max((int(file.stem) for file in needed if file.parent == volumes.folder(path)), default=0)
    listed = {files[n]: kept[n] for n in stay}
    made: list[Path] = []
    try:
        if path in listed:
            made.append(volumes.file(path, number := number + 1))
            _link(path, made[-1])
            listed = {made[-1] if file == path else file: head for file, head in listed.items()}
        for start in range(0, len(fresh), volumes.FULL):
            some = {key: entries[key] for key in fresh[start : start + volumes.FULL]}
            made.append(volumes.file(path, number := number + 1))
            _write(made[-1], files, some, layout, labels)
            with Volume(made[-1]) as volume:
                listed[made[-1]] = volume.head()
        write_entry(path, listed, layout)
    except BaseException:
        _take_back(path, made)
        raise


def _take_back(path: Path, made: Sequence[Path]) -> None:
    """Remove new volumes after a failure, as the disk may be full, but for those that the cache file lists already."""
    with contextlib.suppress(UserError, OSError):
        listed: list[Path] = []
        if path.exists():
            with Cache(path) as cache:
                listed = cache.files
        for file in set(made) - set(listed):
            file.unlink(missing_ok=True)


def _link(path: Path, volume: Path) -> None:
    """Give the plain cache file a second name, as a volume; where there are no hard links, a copy gets it."""
    make_folder(volume.parent)
    volume.unlink(missing_ok=True)  # of a run that was killed
    try:
        if path.is_symlink():
            raise OSError
        os.link(path, volume)
        fsync(volume.parent)
    except OSError:
        with replacing(volume) as temporary:
            shutil.copyfile(path, temporary)


def _write(
    path: Path, files: Sequence[Path], entries: Mapping[str, Entry], layout: Layout, labels: Mapping[str, str]
) -> None:
    """Write `entries`, sorted by key, as one file of rows, whole or not at all."""
    order = [key for key in entries if entries[key].row >= 0]
    rejects = [(key, e.reason, e.inputs) for key, e in entries.items() if e.row < 0]
    with (
        replacing(path) as temporary,
        new_file(temporary) as (f, output),
        OpenVolumes(files, OPEN) as opened,
    ):
        create(f, layout, len(order))
        f["key"][:] = np.fromiter((key.encode() for key in order), KEY.dtype, len(order))
        f["inputs"][:] = undigest([entries[key].inputs for key in order], layout.parents)
        f["digest"][:] = undigest([entries[key].digest for key in order])
        put_rejects(f, rejects, layout.parents)
        f.attrs["rows"] = np.bytes_(file_digest(entries))
        for name, column in layout.columns.items():
            if f[name].compression and f[name].chunks[0] == 1:
                _copy(f[name], name, [entries[key][:2] for key in order], opened, output)
                continue
            # Whole chunks at a time, so that the bytes do not depend on how the rows lay in the parts.
            chunk = f[name].chunks[0]
            step = max(1, BLOCK // row_bytes(column) // chunk) * chunk if column.dtype not in VARYING else 64
            for start in range(0, len(order), step):
                places = [entries[key][:2] for key in order[start : start + step]]  # file, row
                blocks = [opened[number].block(name, *rows) for number, *rows in stretches(places)]
                put(f[name], start, joined(blocks))
                output.check()
            if column.dtype == "label":
                _relabel(f[name], order, labels)


def _relabel(dataset: h5py.Dataset, order: Sequence[str], labels: Mapping[str, str]) -> None:
    """Write the labels of renamed rows, and the digest of all."""
    for i, key in enumerate(order):
        if key in labels:
            dataset[i] = labels[key]
    dataset.attrs["digest"] = np.bytes_(labels_digest(dataset.asstr()[:]))


def _copy(
    dataset: h5py.Dataset, name: str, places: Sequence[tuple[int, int]], opened: OpenVolumes, output: Output
) -> None:
    """Fill `dataset` with the rows at (file, row) `places`; chunks are copied packed where the filters are equal."""
    packing, rest, same_filters = filters(dataset), [0] * (dataset.ndim - 1), dict[int, bool]()
    for i, (number, row) in enumerate(places):
        volume = opened[number]
        if number not in same_filters:
            same_filters[number] = volume.filters(name) == packing
        if same_filters[number]:
            dataset.id.write_direct_chunk((i, *rest), volume.chunk(name, row))
        else:
            dataset[i] = volume.block(name, row, row + 1)[0]
        output.check()
