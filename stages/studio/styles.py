"""The styles on the shelf: the sample paintings, folders that were named, and pictures that were dropped."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.regions import REGIONS
from pipeline import weights
from pipeline.errors import UserError
from pipeline.sources import decode
from pipeline.sources.keys import key_of
from pipeline.sources.reader import Reader, Source
from pipeline.sources.scan import scan
from stages.apply.studio import Studio
from stages.portraits.portrait import Portrait
from stages.studio.portraits import MOST_PIXELS, webp
from stages.studio.worker import Busy, Job, Rank, Worker

MOST_OWN = 200
THUMB = 160  # the shorter side of a thumbnail, in pixels


@dataclass
class Style:
    """A style's picture, by what it is found and where it lies; `valid` is known once it was read."""

    id: str
    sha256: str
    title: str
    load: Callable[[], bytes]
    own: bool = False
    valid: dict[str, bool] | None = None
    thumb: bytes = b""

    def told(self) -> dict[str, Any]:
        """The style as the page sees it; key, title and sha256 are its part of a recipe."""
        facts = {"id": self.id, "key": key_of(self.title), "title": self.title, "sha256": self.sha256}
        return facts | {"own": self.own, "valid": self.valid, "likeness": None}


class Styles:
    """Finds styles by id or content, reads them when a picture needs them."""

    def __init__(self, studio: Studio, worker: Worker, folders: Iterable[Path] = ()) -> None:
        self.studio, self.worker = studio, worker
        self.all: dict[str, Style] = {}
        for title, path in paintings():
            self._put(Style("", "", title, path.read_bytes))
        reader = Reader()
        for folder in folders:
            for source in scan(folder, None, None):
                if not source.problem:
                    self._put(Style("", "", Path(source.path).name, _loader(reader, source)))

    def add(self, data: bytes, name: str) -> tuple[Style, Job]:
        """Put a picture on the shelf, or find it there. Raises: Busy when there are too many."""
        digest = hashlib.sha256(data).hexdigest()
        style = self.all.get(digest[:32])
        if style is None:
            if sum(other.own for other in self.all.values()) >= MOST_OWN:
                raise Busy(f"{MOST_OWN} styles of your own are here; forget them, or name their folder by --style", 2)
            style = Style(digest[:32], digest, name, lambda: data, own=True)

        def read(job: Job) -> None:
            self.thumb(style)
            self.read(style)
            self.all[style.id] = style

        return style, self.worker.submit(Job("style", Rank.IMPORT, read, style.id))

    def forget(self) -> None:
        """Take the dropped pictures off the shelf."""
        for style in [style for style in self.all.values() if style.own]:
            del self.all[style.id]
            self.worker.submit(Job("forget", Rank.EXACT, lambda job, s=style: self.studio.forget(s.sha256)))  # type: ignore[misc]

    def read(self, style: Style) -> Portrait:
        """The style as it is rendered; only in the worker's thread."""
        read = self.studio.read(style.load(), style=True, name=style.title)
        style.valid = dict(zip(REGIONS, map(bool, read.valid), strict=True))
        return read

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

    def _put(self, style: Style) -> None:
        digest = hashlib.sha256(style.load()).hexdigest()
        style.id, style.sha256, style.title = digest[:32], digest, plain(style.title)
        self.all.setdefault(style.id, style)


def plain(title: str) -> str:
    """A title as recipes may hold it: a line, no path, not long."""
    return " ".join(title.replace("/", "-").replace("\\", "-").split())[:200] or "picture"


def paintings() -> list[tuple[str, Path]]:
    """The titles and files of the sample paintings, where they are on this machine."""
    place = weights.local("paintings")
    if place is None:
        return []
    listed = json.loads((place / "objects.json").read_text())["objects"]
    found = [(entry, place / f"{entry['objectID']}.jpg") for entry in listed]
    return [(f"{e['artistDisplayName']}, {e['title']}".strip(", "), path) for e, path in found if path.exists()]


def _loader(reader: Reader, source: Source) -> Callable[[], bytes]:
    return lambda: reader.read(source)
