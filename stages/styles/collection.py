"""All styles that can be searched: the paintings that ship, and those of the cache folder."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from models.regions import REGIONS
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.runner.spec import Item
from stages.portraits.portrait import Portrait, one
from stages.preprocess import aladin_codes, align, compatibility
from stages.styles import blocks as searching
from stages.styles import library
from stages.styles.blocks import WHOLE, Block, Found
from stages.styles.library import Library

PLACES = (WHOLE, *REGIONS)

Kept = TypeVar("Kept")


class Styles:
    """The library's paintings and the styles of CACHE/style/aladin.h5, each picture once; or those of one `file`.

    With `keep` codes stay in memory (1 GB for a million styles) until the file changes; else they are read block by
    block. The paintings are left out, and a line says so, where the profile's networks would give other codes.
    """

    def __init__(self, ctx: Context, file: Path | None = None, keep: bool = False) -> None:
        self.ctx, self.file, self.keep = ctx, file or ctx.file("style", "aladin"), keep
        self.alone = file is not None
        self._kept: dict[str, tuple[Any, Any]] = {}

    @cached_property
    def library(self) -> Library | None:
        """The paintings, unless the styles are those of one file."""
        return None if self.alone else library.shipped()

    def search(
        self, like: np.ndarray | None = None, region: str = WHOLE, k: int = 12, text: str = "", without: str = ""
    ) -> list[Found]:
        """The k styles whose code of a region is likest to the code [256], or without one the first k by name.

        Only those with every word of `text` in their name; not the one with the key `without`.
        Raises: UserError(2) when there are no codes, or another encoder than the profile's made them, or `k` is wrong.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise UserError(f"k is {k!r}; expected a number of styles, 1 or more", 2)
        if not isinstance(text, str):
            raise UserError(f"text is {text!r}; expected words of a style's name", 2)
        if like is None:
            return searching.named(self.blocks(region, coded=False), k, text)
        return searching.nearest(self.blocks(region), like[None], k, text, (without,))[0]

    def blocks(self, region: str = WHOLE, coded: bool = True) -> Iterable[Block]:
        """The codes of the styles that have the region, or of all whole images; paintings first.

        Without `coded` the paintings are there whatever their codes are of. Raises: UserError as `search`.
        """
        if region not in PLACES:
            raise UserError(f"there is no region {region!r}; expected one of {', '.join(PLACES)}", 2)
        there = self.file.exists()
        paintings = []
        if self.library and (not coded or self.library.is_current(self.ctx)):
            paintings = [self.library.block(region, self._kept_until_changed("sources", self._sources))]
        elif not there:
            raise UserError(f"{self.file}: is missing; run `hypernst aladin-codes` first", 2)
        elif self.library:
            say("the paintings are left out: their codes are of other networks than the profile's")
        if not there:
            return paintings
        self._check_encoder()
        if not self.keep:
            return itertools.chain(paintings, searching.of_cache(self.file, region))
        return [*paintings, *self._kept_until_changed(region, lambda: [*searching.of_cache(self.file, region)])]

    def code(self, key: str, region: str = WHOLE) -> np.ndarray:
        """The code [256] of a style. Raises: UserError(2) when there is no such style, or it lacks the region."""
        for block in self.blocks(region):
            if key in block.keys:
                return block.codes[block.keys.index(key)]
        if region != WHOLE:
            self.code(key)
            raise UserError(f"{key}: has no {region}; search by another --region", 2)
        raise UserError(f"{key}: is neither a file nor the key of a style; find keys with `hypernst search --text`", 2)

    def pictures(self, keys: Sequence[str]) -> list[bytes]:
        """The styles' pictures, encoded: a painting's file, or the aligned image of the cache's row.

        Raises: UserError(2) for a key without a picture.
        """
        found: dict[str, bytes] = {}
        images = self.file.with_name("images.h5")
        if images.exists():
            with Cache(images) as cache:
                here = sorted(set(keys) & set(cache.keys()))
                found = {k: bytes(r["image"]) for k, r in zip(here, cache.rows(here, ["image"]), strict=True)}
        for painting in self.library.paintings if self.library else ():
            if painting.key in keys and painting.key not in found:
                found[painting.key] = painting.read()
        if missing := sorted(set(keys) - set(found)):
            raise UserError(f"{missing[0]}: there is no picture of this style", 2)
        return [found[key] for key in keys]

    def aligned(self, keys: Sequence[str]) -> list[bytes]:
        """The squares, encoded, that the styles' codes are of. Raises: UserError as `pictures`."""
        ours = {painting.key for painting in self.library.paintings} if self.library else set()
        step = align.spec(self.ctx, "style")
        work = step.open(self.ctx) if ours & set(keys) else None
        found = zip(keys, self.pictures(keys), strict=True)
        return [
            bytes(one(work, Item(key, {"source": data}, key))["image"]) if work and key in ours else data
            for key, data in found
        ]

    def _check_encoder(self) -> None:
        spec = aladin_codes.spec(self.ctx)
        mine = compatibility.encoder_id({"params": spec.params, "weights": spec.weights})
        with Cache(self.file) as cache:
            theirs = compatibility.encoder_id(cache.provenance)
        if mine != theirs:
            raise UserError(
                f"{self.file}: holds codes of {theirs}, profile {self.ctx.profile.name} has {mine}; run "
                "`hypernst aladin-codes`, or name another --profile or --cache",
                2,
            )

    def _sources(self) -> frozenset[str]:
        """The digests of the files that the cache's styles were read from."""
        images = self.file.with_name("images.h5")
        if not self.file.exists() or not images.exists():
            return frozenset()
        with Cache(images) as cache:
            return frozenset(entry.inputs.hex() for entry in cache.entries().values() if entry.row >= 0)

    def _kept_until_changed(self, what: str, make: Callable[[], Kept]) -> Kept:
        """What `make` makes of the file, made again when the file is another."""
        stat = self.file.stat() if self.file.exists() else None
        stamp = stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if what not in self._kept or self._kept[what][0] != stamp:
            self._kept[what] = stamp, make()
        return self._kept[what][1]


def code_of(style: Portrait, region: str) -> np.ndarray:
    """An image's code [256] of a region or of all of it. Raises: UserError when it lacks the region."""
    if region not in PLACES:
        raise UserError(f"there is no region {region!r}; expected one of {', '.join(PLACES)}", 2)
    if region == WHOLE:
        return style.codes[len(REGIONS)]
    if not style.valid[REGIONS.index(region)]:
        raise UserError(f"{style.key}: has no {region}; search by the whole image or another region")
    return style.codes[REGIONS.index(region)]
