"""The cache file of a cache with volumes: it lists them, and shows them to any HDF5 program as whole datasets.

These are virtual datasets: links alone would show a group per volume, and copies of keys and digests would cost
more than most additions do. Where a volume is missing HDF5 shows fill values, without a word: there a key is
empty, a float NaN. This program never reads through them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from pipeline.caches import volumes
from pipeline.caches.digests import Index, rejects_digest
from pipeline.caches.output import new_file
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Column, Entry, Layout
from pipeline.caches.volume import Head
from pipeline.caches.volumes import Listed
from pipeline.caches.writer import describe, fixed, kind, of_rejects
from pipeline.files import replacing


def write_entry(path: Path, heads: Mapping[Path, Head], layout: Layout) -> None:
    """Write the cache file `path` that lists its volumes, whole or not at all."""
    listed = [Listed(int(file.stem), len(one.rows), len(one.rejects), one.identity) for file, one in heads.items()]
    rejects = {key: entry for head in heads.values() for key, entry in head.rejects.items()}
    with replacing(path) as temporary, new_file(temporary) as (f, output):
        describe(f, layout.provenance)
        f.attrs["rows"] = np.bytes_(Index.union([head.rows for head in heads.values()]).file_digest())
        f.attrs["rejects"] = np.bytes_(all_rejects_digest(rejects))
        _stored(f, "volumes/counts", np.array([one[:3] for one in listed], "i8"))
        _stored(f, "volumes/digest", np.array([list(one.digest) for one in listed], "u1"))
        f.create_group("rejects")
        for name, column in {**layout.columns, **fixed(layout.parents), **of_rejects(layout.parents)}.items():
            _show(f, name, column, _places(path, name, listed))
            output.check()


def all_rejects_digest(entries: Mapping[str, Entry]) -> str:
    """The hex digest of all rejects among `entries`, sorted by key."""
    return rejects_digest([(key, e.reason, e.inputs) for key, e in sorted(entries.items()) if e.row < 0])


def shows_otherwise(cache: Cache) -> list[str]:
    """The datasets in which another program would see something else than what the file lists."""
    wrong = []
    with h5py.File(cache.path, "r", locking=False) as f:
        for name in (*cache.columns, *fixed(1), *of_rejects(1)):
            expected = _places(cache.path, name, cache.listed)
            dataset = f.get(name)
            found = dataset.virtual_sources() if isinstance(dataset, h5py.Dataset) and dataset.is_virtual else []
            shown = [(one.file_name, one.dset_name, *_rows(one.vspace)) for one in found if _is_whole(one.src_space)]
            if shown != [(file, name, start, start + count - 1) for file, start, count in expected]:
                wrong.append(name)
    return wrong


def _places(path: Path, name: str, listed: Sequence[Listed]) -> list[tuple[str, int, int]]:
    """(file, seen from the cache file; first row; count) of each volume in one dataset of the cache file."""
    places, start = [], 0
    for one in listed:
        count = one.rejects if name.startswith("rejects/") else one.rows
        if count:
            places.append((volumes.file(path, one.number).relative_to(path.parent).as_posix(), start, count))
        start += count
    return places


def _rows(space: h5py.h5s.SpaceID) -> tuple[int, int]:
    """The first and the last row of a selection."""
    first, last = space.get_select_bounds()
    return first[0], last[0]


def _is_whole(space: h5py.h5s.SpaceID) -> bool:
    return space.get_select_type() == h5py.h5s.SEL_ALL


def _stored(f: h5py.File, name: str, values: np.ndarray) -> None:
    shape = {"chunks": (64, values.shape[1]), "maxshape": (None, values.shape[1])}
    f.create_dataset(name, data=values, fletcher32=True, track_times=False, **shape)


def _show(f: h5py.File, name: str, column: Column, places: Sequence[tuple[str, int, int]]) -> None:
    """Add a virtual dataset; h5py's own way to do so writes the time into it."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.VIRTUAL)
    properties.set_obj_track_times(False)
    if column.dtype.startswith("f"):
        properties.set_fill_value(np.array([np.nan], column.dtype))
    total, origin = sum(count for _, _, count in places), [0] * len(column.shape)
    for file, start, count in places:
        shown = h5py.h5s.create_simple((total, *column.shape))
        shown.select_hyperslab((start, *origin), (count, *column.shape))
        source = h5py.h5s.create_simple((count, *column.shape))
        properties.set_virtual(shown, file.encode(), name.encode(), source)
    space = h5py.h5s.create_simple((total, *column.shape))
    kind_id = h5py.h5t.py_create(np.dtype(kind(column)), logical=True)
    h5py.h5d.create(f.id, name.encode(), kind_id, space, dcpl=properties)
