"""Style codes of one region in blocks, and exact search by cosine in them, one block at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.regions import REGIONS
from pipeline.caches.reader import Cache

WHOLE = "whole"  # beside hair, face and background: the whole image
ROWS = 16384  # of a block: 16 MB of codes


@dataclass(frozen=True)
class Block:
    """Styles by key, with the titles that people know them by and their codes f32 [n, 256] of unit length."""

    keys: Sequence[str]
    titles: Sequence[str]
    codes: np.ndarray


@dataclass(frozen=True)
class Found:
    """A style that was found, and the cosine to what was asked for; None where nothing was."""

    key: str
    title: str
    likeness: float | None = None


def unit(codes: np.ndarray) -> np.ndarray:
    """Codes [N, 256] as f32, each divided by its length."""
    codes = np.asarray(codes, np.float32)
    return codes / np.linalg.norm(codes, axis=1, keepdims=True).clip(1e-8)


def of_cache(path: Path, region: str = WHOLE) -> Iterator[Block]:
    """The codes of an aladin.h5 in order of key, without the rows where the region is not valid.

    Raises: UserError when the file cannot be read.
    """
    with Cache(path) as cache:
        keys = cache.keys()
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for start in range(0, len(keys), ROWS):
            rows = order[start : start + ROWS]
            if region == WHOLE:
                block, codes = [keys[row] for row in rows], cache.gather("image_code", rows)
            else:
                index = REGIONS.index(region)
                valid = np.flatnonzero(cache.gather("valid", rows)[:, index])
                block, codes = [keys[rows[i]] for i in valid], cache.gather("code", rows)[valid, index]
            yield Block(block, block, unit(codes))


def nearest(
    blocks: Iterable[Block], queries: np.ndarray, k: int, text: str = "", without: Sequence[str] = ()
) -> list[list[Found]]:
    """For each query [Q, 256], the k styles with the highest cosine, the likest first; equal ones by key.

    Only styles whose key or title has every word of `text`, in any case, and whose key is not in `without`.
    """
    queries = unit(queries)
    best: list[list[tuple[float, str, str]]] = [[] for _ in queries]
    for block in blocks:
        rows = _rows(block, text, without)
        if not len(rows):
            continue
        codes = block.codes if len(rows) == len(block.keys) else block.codes[rows]
        for found, distances in zip(best, -(queries @ codes.T), strict=True):
            most = np.partition(distances, k - 1)[k - 1] if k < len(rows) else np.inf
            if len(found) == k:
                most = min(most, found[-1][0])
            near = ((float(distances[i]), int(rows[i])) for i in np.flatnonzero(distances <= most))
            found += [(distance, block.keys[i], block.titles[i]) for distance, i in near]
            found.sort()
            del found[k:]
    return [[Found(key, title, -distance) for distance, key, title in found] for found in best]


def named(blocks: Iterable[Block], k: int, text: str = "") -> list[Found]:
    """The first k styles whose key or title has every word of `text`."""
    found: list[Found] = []
    for block in blocks:
        found += [Found(block.keys[i], block.titles[i]) for i in _rows(block, text, ())[: k - len(found)]]
        if len(found) == k:
            break
    return found


def _rows(block: Block, text: str, without: Sequence[str]) -> np.ndarray:
    """The places of the styles in a block that a search is about."""
    if not text and not without:
        return np.arange(len(block.keys))
    words = text.casefold().split()
    names = zip(block.keys, block.titles, strict=True)
    return np.array(
        [i for i, (k, t) in enumerate(names) if k not in without and _has(f"{k} {t}".casefold(), words)], np.int64
    )


def _has(name: str, words: Sequence[str]) -> bool:
    return all(word in name for word in words)
