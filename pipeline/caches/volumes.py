"""The volumes of a cache that has grown: immutable files of rows, listed by the cache file, and which of them to merge.

A key lies in one volume only, so their order means nothing. Volumes are added for new rows; one that has lost a row, or
whose rows have other labels, is written anew. How many there are follows from counts alone, never from bytes, so that
it does not depend on the engine or on kills.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.caches.failures import cache_error
from pipeline.caches.volume import DAMAGE, Volume

FULL = 8192  # most rows and rejects of a volume; full ones are never merged
ONE_FILE = 1024  # a cache of no more rows and rejects is always written as one plain file
FAN = 8  # so many volumes of one magnitude are merged


class Listed(NamedTuple):
    """What a cache file lists of a volume; `digest` is its `Volume.identity`."""

    number: int
    rows: int
    rejects: int
    digest: bytes


def folder(path: Path) -> Path:
    """The folder of a cache file's volumes."""
    return path.with_suffix(".volumes")


def file(path: Path, number: int) -> Path:
    """The file of one volume of the cache file `path`."""
    return folder(path) / f"{number:06d}.h5"


def there(path: Path) -> list[Path]:
    """The volumes in a cache file's folder, listed or not, oldest first."""
    return sorted(p for p in folder(path).glob("*.h5") if p.stem.isdigit())


def listed(entry: Volume) -> list[Listed]:
    """The volumes that an open cache file lists; none where it is a plain file of rows itself.

    Raises: UserError when the list is damaged.
    """
    if "volumes" not in entry.h5:
        return []
    try:
        counts, digests = (entry.dataset(f"volumes/{name}")[:] for name in ("counts", "digest"))
        found = [Listed(int(c[0]), int(c[1]), int(c[2]), d.tobytes()) for c, d in zip(counts, digests, strict=True)]
        if not found or min(min(one[:3]) for one in found) < 0 or len({one.number for one in found}) < len(found):
            raise ValueError("its list of volumes makes no sense")
    except DAMAGE as e:
        raise cache_error(entry.path, e, "volumes") from e
    return found


def unlisted(path: Path, current: Collection[Path]) -> list[Path]:
    """The volumes in the folder that are not among the `current` files: merged by the last run, or left by a kill."""
    return [volume for volume in there(path) if volume not in current]


def to_merge(sizes: Mapping[int, int], added: int) -> set[int]:
    """Which volumes, of `sizes` rows and rejects by number, are written anew together with `added` new ones.

    All of a small cache. Else, from small to large, FAN volumes of one magnitude, and with them all smaller ones. So a
    row is rewritten about once per magnitude, and fewer than FAN volumes per magnitude are left.
    """
    if sum(sizes.values()) + added <= ONE_FILE:
        return set(sizes)
    merged: set[int] = set()
    size, least = added, 0
    for most in (FULL // FAN**2, FULL // FAN, FULL - 1):
        alike = [number for number in sizes if number not in merged and least < sizes[number] <= most]
        if len(alike) + (least < size <= most) >= FAN:
            merged = {number for number in sizes if sizes[number] <= most}
            size = added + sum(sizes[number] for number in merged)
        least = most
    return merged
