"""The styles on the shelf: the sample paintings, folders that were named, and pictures that were dropped."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.regions import CODE_SIZE, REGIONS
from pipeline import weights
from pipeline.caches.reader import Cache
from pipeline.errors import UserError
from pipeline.progress import pause, say
from pipeline.runner.recipe import change
from pipeline.sources import decode
from pipeline.sources.keys import key_of
from pipeline.sources.reader import Reader, Source
from pipeline.sources.scan import LeftOut, scan
from stages.apply.studio import Studio
from stages.portraits.portrait import Origin, Portrait, codes_of
from stages.preprocess import aladin_codes
from stages.studio.portraits import MOST_PIXELS, webp
from stages.studio.worker import Busy, Job, Rank, Worker
from stages.styles import library
from stages.styles.blocks import WHOLE, Block, nearest, unit
from stages.styles.map import Map

MOST_OWN, MOST_CACHED = 200, 2000
AT_ONCE = 64  # styles of a cache that are read between two pauses
CODES = ["code", "valid", "image_code"]
THUMB = 160  # the shorter side of a thumbnail, in pixels


@dataclass
class Style:
    """A style's picture, by what it is found and where it lies.

    Codes [4, 256] of regions and the whole, which regions are valid [3], and the palette [4, 4] are known once it was
    `read`, or shipped.
    """

    id: str
    sha256: str
    title: str
    load: Callable[[], bytes]
    own: bool = False
    read: bool = False
    codes: np.ndarray | None = None
    valid: np.ndarray | None = None
    palette: np.ndarray | None = None
    thumb: bytes = b""

    def told(self, likeness: float | None = None) -> dict[str, Any]:
        """The style as the page sees it; key, title and sha256 are its part of a recipe."""
        facts = {"id": self.id, "key": key_of(self.title), "title": self.title, "sha256": self.sha256}
        valid = None if self.valid is None else dict(zip(REGIONS, map(bool, self.valid), strict=True))
        return facts | {"own": self.own, "read": self.read, "valid": valid, "likeness": likeness and round(likeness, 4)}


class Styles:
    """Finds styles by id or content, reads them when a picture needs them."""

    def __init__(
        self, studio: Studio, worker: Worker, folders: Iterable[Path] = (), cached: Path | None = None
    ) -> None:
        self.studio, self.worker = studio, worker
        self.all: dict[str, Style] = {}  # replaced and never filled, as others go through it meanwhile
        self._put_paintings()
        sources = [source for folder in folders for source in _sources(folder)]
        self.filling = Job("shelf", Rank.BATCH, lambda job: self._fill(cached, sources, job))
        worker.submit(self.filling)

    def add(self, data: bytes, name: str) -> tuple[Style, Job]:
        """Put a picture on the shelf, or find it there; a person's own takes the new name.

        Raises: Busy when there are too many.
        """
        digest = hashlib.sha256(data).hexdigest()
        style = self.all.get(digest[:32])
        if style is None:
            if sum(other.own for other in self.all.values()) >= MOST_OWN:
                raise Busy(f"{MOST_OWN} styles of your own are here; forget them, or name their folder by --style", 2)
            style = Style(digest[:32], digest, name, lambda: data, own=True)
        elif style.own:
            style.title = name

        def read(job: Job) -> None:
            self.thumb(style)
            self.read(style)
            self._put(style)

        return style, self.worker.submit(Job("style", Rank.IMPORT, read, style.id))

    def forget(self) -> None:
        """Take the dropped pictures off the shelf."""
        own = [style for style in self.all.values() if style.own]
        self.all = {id: style for id, style in self.all.items() if not style.own}
        for style in own:
            self.worker.submit(Job("forget", Rank.EXACT, lambda job, s=style: self.studio.forget(s.sha256)))  # type: ignore[misc]

    def read(self, style: Style) -> Portrait:
        """The style as it is rendered; only in the worker's thread."""
        read = self.studio.read(style.load(), style=True, name=style.title)
        style.codes, style.valid, style.palette, style.read = read.codes, read.valid, read.palette, True
        return read

    def quick(self, style: Style) -> Portrait:
        """The style by the codes that are known of it: enough for a picture that another follows."""
        if style.codes is None or style.valid is None:
            return self.read(style)
        nothing = np.zeros((0, 0), np.uint8)
        origin = Origin(style.title, style.sha256)
        codes, none = style.codes.astype(np.float32), np.zeros((0, 512), np.float32)
        return Portrait(style.title, nothing, nothing, none, codes, style.valid, origin, colours=style.palette)

    def find(self, text: str) -> list[Style]:
        """The styles with every word of a text in their title."""
        words = text.casefold().split()
        return [style for style in self.all.values() if all(word in style.title.casefold() for word in words)]

    def like(self, code: np.ndarray, region: str, k: int, text: str) -> list[tuple[Style, float]]:
        """The k styles likest to a code [256], the likest first."""
        found = nearest([self.block(region)], code[None], k, text)[0]
        return [(self.all[one.key], one.likeness or 0.0) for one in found]

    def map(self, region: str) -> tuple[list[str], np.ndarray]:
        """The styles whose code of a region is known, and their places f32 [N, 2] in [0, 1] on a map of it."""
        block = self.block(region)
        places = Map([block]).place(block.codes)
        low, span = (places.min(0), np.ptp(places, 0)) if len(places) else (0.0, 1.0)
        return list(block.keys), np.where(span > 1e-6, (places - low) / np.maximum(span, 1e-6), 0.5)

    def block(self, region: str) -> Block:
        """The codes of a region, by the styles' ids. Raises: UserError when there is no such region."""
        index = place_of(region)
        known = [style for style in self.all.values() if style.codes is not None and has(style.valid, index)]
        codes = [style.codes[index] for style in known if style.codes is not None]
        return Block([s.id for s in known], [s.title for s in known], unit(np.array(codes).reshape(-1, CODE_SIZE)))

    def by_sha256(self, sha256: str) -> Style | None:
        """The style of a recipe."""
        style = self.all.get(sha256[:32])
        return style if style and style.sha256 == sha256 else None

    def thumb(self, style: Style) -> bytes:
        """A small picture, WebP. Raises: UserError when the file is none."""
        if not style.thumb:
            try:
                rgb = decode.read(style.load(), MOST_PIXELS)
            except (OSError, decode.UnusableError) as error:
                raise UserError(f"{style.title}: {error}") from error
            height, width = rgb.shape[:2]
            scale = THUMB / min(height, width)
            size = max(THUMB, round(width * scale)), max(THUMB, round(height * scale))
            small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
            top, left = (size[1] - THUMB) // 4, (size[0] - THUMB) // 2  # heads are above the middle
            square = np.ascontiguousarray(small[top : top + THUMB, left : left + THUMB])
            style.thumb = webp(square)
        return style.thumb

    def _put(self, *styles: Style) -> None:
        """Put styles on the shelf; those that are there already stay."""
        shelf = self.all.copy()
        for style in styles:
            shelf.setdefault(style.id, style)
        self.all = shelf

    def _fill(self, cached: Path | None, sources: list[Source], job: Job) -> None:
        """Put on the shelf what has to be read first to be known by its content; then have it read as styles."""
        if cached:
            try:
                self._put_cached(cached)
            except UserError as error:
                say(f"studio: {error}")
        found, reader = list[Style](), Reader()
        for number, source in enumerate(sources):
            job.counts, job.done, job.of = True, number, len(sources)
            pause()
            with suppress(OSError):  # it was there when the folder was looked through
                load = partial(reader.read, source)
                found.append(_style(Path(source.path).name, load(), load))
        self._put(*found)
        if unread := [self.all[style.id] for style in found]:
            self.worker.submit(Job("shelf", Rank.BATCH, lambda job: self._read_all(unread, job)))

    def _put_paintings(self) -> None:
        """The sample paintings, where they are on this machine, with their codes if these networks made them."""
        if weights.local(library.PICTURES) is None:
            return
        shipped, made = library.shipped(), []
        current = shipped.is_current(self.studio.ctx)
        rows = zip(shipped.codes, shipped.valid, shipped.palettes.astype(np.float32), strict=True)
        for painting, known in zip(shipped.paintings, rows, strict=True):
            style = Style(painting.sha256[:32], painting.sha256, plain(painting.title), painting.read)
            if current:
                style.codes, style.valid, style.palette = known
            made.append(style)
        self.all = self.all | {style.id: style for style in made}

    def _put_cached(self, folder: Path) -> None:
        """The styles of a cache, aligned as they are there, with their codes if these networks made them."""
        there, codes = [folder / name for name in ("images.h5", "aladin.h5")], aladin_codes.spec(self.studio.ctx)
        if not all(file.exists() for file in there):
            return
        with Cache(there[0]) as images, Cache(there[1]) as coded:
            paintings = {painting.digest for painting in library.shipped().paintings}
            seen = {key for key, entry in images.entries().items() if entry.inputs.hex() not in paintings}
            keys = sorted(seen & set(images.keys()) & set(coded.keys()))
            if len(keys) > MOST_CACHED:
                say(f"studio: the first {MOST_CACHED} of {len(keys)} styles in {folder}; `hypernst search` knows all")
            current, made = not change(coded.provenance, codes), list[Style]()
            for start in range(0, min(len(keys), MOST_CACHED), AT_ONCE):
                pause()
                some = keys[start : min(start + AT_ONCE, MOST_CACHED)]
                rows = zip(some, images.rows(some, ["image"]), coded.rows(some, CODES), strict=True)
                for key, image, code in rows:
                    made.append(_style(key, bytes(image["image"]), partial(_picture_in, there[0], key)))
                    if current:
                        made[-1].codes, made[-1].valid = codes_of(code), code["valid"]
        self._put(*made)

    def _read_all(self, styles: list[Style], job: Job) -> None:
        for number, style in enumerate(styles):
            job.counts, job.done, job.of = True, number, len(styles)
            with suppress(UserError):  # it is told when the style is chosen
                self.read(style)


def place_of(region: str) -> int:
    """The row of a region, or of the whole image, in codes [4, 256]. Raises: UserError when there is no such region."""
    if region not in (*REGIONS, WHOLE):
        raise UserError(f"there is no such region; expected {', '.join(REGIONS)} or {WHOLE}")
    return (*REGIONS, WHOLE).index(region)


def has(valid: np.ndarray | None, index: int) -> bool:
    """Whether an image has the region of this row; the whole image is always there."""
    return index == len(REGIONS) or (valid is not None and bool(valid[index]))


def plain(title: str) -> str:
    """A title as recipes may hold it: a line, no path, not long."""
    return " ".join(title.replace("/", "-").replace("\\", "-").split())[:200] or "picture"


def _style(title: str, data: bytes, load: Callable[[], bytes]) -> Style:
    """The style in a file's bytes, which `load` gives again."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Style(sha256[:32], sha256, plain(title), load)


def _sources(folder: Path) -> list[Source]:
    """The pictures in a folder or an archive that can be read; what is left out is told."""
    left = LeftOut()
    found = [source for source in scan(folder, None, None, left) if not source.problem]
    left.tell(folder)
    return found


def _picture_in(images: Path, key: str) -> bytes:
    with Cache(images) as cache:
        return bytes(cache.rows([key], ["image"])[0]["image"])
