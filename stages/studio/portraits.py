"""The portraits that are open: read in the background, first with the encoder's latent, then with the final one."""

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from models.regions import REGIONS
from pipeline.errors import UserError
from pipeline.profile import NoFace
from pipeline.sources import decode
from stages.apply.studio import Studio
from stages.portraits.portrait import Portrait
from stages.preprocess import align
from stages.studio.worker import Busy, Job, Rank, Worker, in_words

MOST = 8  # portraits that are open at a time
MOST_PIXELS = 40_000_000
MOMENT = 0.15  # seconds in which the page asks for a draft's picture, before its latent is optimised
PREVIEW = 640  # the longer side in pixels of the picture in which a face is chosen


@dataclass
class Opened:
    """A portrait's file and what is known of it. `state`: waiting, reading, draft, ready, no_face or failed.

    `faces` are boxes (left, top, right, bottom), as shares of the upright picture, from the left. `version` counts the
    portraits that were made of it: pictures of an earlier one are outdated.
    """

    id: str
    name: str
    data: bytes
    sha256: str
    face: int | None = None
    no_face: NoFace | None = None
    state: str = "waiting"
    version: int = 0
    portrait: Portrait | None = None
    faces: list[tuple[float, float, float, float]] = field(default_factory=list)
    preview: bytes = b""
    fault: dict[str, str] = field(default_factory=dict)

    def read(self) -> Portrait:
        """The portrait as it is read so far. Raises: UserError when it is not."""
        if self.portrait is None:
            raise UserError(f"{self.name}: is not read yet; wait for it, or choose its face")
        return self.portrait

    def told(self) -> dict[str, Any]:
        """The portrait as the page sees it; `portrait` is its part of a recipe."""
        asked = {"face": self.face, "no_face": self.no_face}
        named = {"name": self.name, "sha256": self.sha256} | {k: v for k, v in asked.items() if v is not None}
        facts = {"id": self.id, "name": self.name, "state": self.state, "version": self.version, "portrait": named}
        facts |= {"faces": self.faces, "shares": None, "valid": None}
        if self.portrait is not None:
            region = self.portrait.region
            facts["shares"] = {name: round(float((region == i).mean()), 4) for i, name in enumerate(REGIONS)}
            facts["valid"] = dict(zip(REGIONS, map(bool, self.portrait.valid), strict=True))
        return facts | self.fault


class Portraits:
    """Opens portraits by the worker; `tell` is called with a portrait when its state changes."""

    def __init__(self, studio: Studio, worker: Worker, tell: Callable[[Opened], None]) -> None:
        self.studio, self.worker, self.tell = studio, worker, tell
        self.open: dict[str, Opened] = {}
        self._jobs: dict[str, Job] = {}

    def add(self, data: bytes, name: str) -> tuple[Opened, Job]:
        """Open a file's portrait; one that is open takes the new name. Raises: Busy when too many are open."""
        sha256 = hashlib.sha256(data).hexdigest()
        if (opened := self.open.get(sha256[:32])) is None:
            if len(self.open) >= MOST:
                raise Busy(f"{MOST} portraits are open; forget one of them", 2)
            opened = Opened(sha256[:32], name, data, sha256)
        opened.name = name
        return opened, self._import(opened)

    def choose(self, opened: Opened, face: int | None, no_face: NoFace | None) -> Job:
        """Take another face of a picture, or its centre."""
        if face is not None and not 1 <= face <= len(opened.faces):
            raise UserError(f"there is no face {face}; expected 1 to {len(opened.faces)}", 2)
        opened.face, opened.no_face = face, no_face
        return self._import(opened)

    def forget(self, opened: Opened) -> None:
        """Close a portrait; nothing of it is kept."""
        self.open.pop(opened.id, None)
        if job := self._jobs.pop(opened.id, None):
            self.worker.cancel(job)
        self.worker.submit(Job("forget", Rank.EXACT, lambda job: self.studio.forget(opened.sha256)))

    def _import(self, opened: Opened) -> Job:
        job, state = Job("portrait", Rank.IMPORT, lambda job: self._read(opened, job), opened.id), opened.state
        opened.state, opened.fault = "waiting", {}
        try:
            self.worker.submit(job)
        except Busy:
            opened.state = state
            raise
        if former := self._jobs.get(opened.id):
            self.worker.cancel(former)
        self.open[opened.id], self._jobs[opened.id] = opened, job
        return job

    def _read(self, opened: Opened, job: Job) -> None:
        self._change(opened, "reading")
        try:
            if not opened.preview:
                opened.preview, opened.faces = look_at(self.studio, opened.data)
            options: dict[str, Any] = {"face": opened.face, "no_face": opened.no_face, "name": opened.name}
            opened.portrait = self.studio.read(opened.data, draft=True, **options)
            if self.studio.ctx.profile.inverter.steps:
                self._change(opened, "draft")
                time.sleep(MOMENT)
                self.worker.pause()
                opened.portrait = self.studio.read(opened.data, **options)
            self._change(opened, "ready")
        except UserError as error:
            none = opened.preview and not opened.faces and opened.no_face is None
            opened.fault = in_words(error)
            self._change(opened, "no_face" if none else "failed")
            raise

    def _change(self, opened: Opened, state: str) -> None:
        opened.state = state
        if state in ("draft", "ready"):
            opened.version += 1
        if self.open.get(opened.id) is opened:
            self.tell(opened)


def webp(rgb: np.ndarray) -> bytes:
    """RGB u8 [H, W, 3] as a small file."""
    made = io.BytesIO()
    Image.fromarray(rgb).save(made, "WEBP", quality=80, method=2)
    return made.getvalue()


def look_at(studio: Studio, data: bytes) -> tuple[bytes, list[tuple[float, float, float, float]]]:
    """A small upright picture of a file, as WebP, and the boxes of its faces. Raises: UserError when it is none."""
    try:
        rgb = decode.read(data, MOST_PIXELS)
    except decode.UnusableError as error:
        raise UserError(str(error)) from error
    upright, faces = align.faces_of(rgb, studio.ctx)
    height, width = upright.shape[:2]
    boxes = [face.box for face in faces]
    shares = [(x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h in boxes]
    scale = min(1.0, PREVIEW / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.ascontiguousarray(cv2.resize(upright, size, interpolation=cv2.INTER_AREA))
    return webp(small), [tuple(round(float(v), 4) for v in box) for box in shares]  # type: ignore[misc]
