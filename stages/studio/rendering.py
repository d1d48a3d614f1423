"""Pictures for the page: the newest wish of each page first, exact; and refinements, step by step."""

import asyncio
import base64
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pipeline import images
from pipeline.errors import UserError
from stages.apply import edit, large
from stages.apply import recipe as recipes
from stages.apply.look import Look
from stages.apply.recipe import Recipe
from stages.apply.studio import Studio
from stages.portraits.portrait import Portrait
from stages.studio.answers import MissingStyles, Outdated, body_of, done, found, text_in
from stages.studio.portraits import Opened, Portraits
from stages.studio.styles import Styles
from stages.studio.worker import Job, Rank, Worker

MOST_PAGES = 64
PURPOSES = {"exact": Rank.EXACT, "keyframe": Rank.KEYFRAME, "large": Rank.REFINE}  # of pictures, and their rank


@dataclass
class Newest:
    """The last ticket of a page, and the job that makes its picture."""

    ticket: int = -1
    job: Job | None = None
    refining: list[Job] = field(default_factory=list)


@dataclass(frozen=True)
class Wish:
    """What a page asks for: a recipe for a portrait, the page and its ticket, and one of PURPOSES."""

    recipe: Recipe
    opened: Opened
    page: str
    ticket: int
    purpose: str


class Rendering:
    """Renders recipes by the worker."""

    def __init__(self, studio: Studio, worker: Worker, portraits: Portraits, styles: Styles) -> None:
        self.studio, self.worker, self.portraits, self.styles = studio, worker, portraits, styles
        self._pages: OrderedDict[str, Newest] = OrderedDict()

    def cooked(self, wish: Wish) -> tuple[Portrait, Look]:
        """The portrait as a wish's recipe edits it, and its look in the styles on the shelf; in the worker's thread.

        A keyframe takes the codes that ship, which are rounded, rather than to read a painting first.
        """
        recipe = wish.recipe
        known = [self.styles.by_sha256(told["sha256"]) for told in recipe.styles.values()]
        read = self.styles.quick if wish.purpose == "keyframe" and not recipe.refine else self.styles.read
        look = self.studio.cook(recipe, [read(style) for style in known if style])
        return self.studio.edit(wish.opened.read(), recipe.edits), look

    async def render(self, request: Request) -> Response:
        """POST /api/render: the picture of a recipe."""
        wish = self.wish(await body_of(request))
        newest = self._newest(wish)
        large.checked(self.studio.ctx, wish.recipe.size)
        job = Job("render", PURPOSES[wish.purpose], lambda job: self._render(wish))
        self.worker.submit(job)
        if wish.purpose == "exact":
            if newest.job is not None and newest.job.state == "waiting":
                self.worker.cancel(newest.job)
            newest.ticket, newest.job = wish.ticket, job
            for refining in newest.refining:
                refining.wanted = False
        data, seconds, version, state = await done(request, self.worker, job)
        headers = {
            "X-Ticket": str(wish.ticket),
            "X-Seconds": f"{seconds:.3f}",
            "X-Version": str(version),
            "X-State": state,
        }
        return Response(data, media_type="image/png", headers=headers)

    async def refine(self, request: Request) -> Response:
        """POST /api/refine: the picture of a recipe after each step of its refinement, a line of JSON each."""
        wish = self.wish(await body_of(request))
        newest = self._newest(wish)
        newest.ticket = wish.ticket
        self.studio.steps(wish.recipe.refine)
        lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def send(**line: Any) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        job = Job("refine", Rank.REFINE, lambda job: self._refine(wish, job, send))
        newest.refining = [other for other in newest.refining if not other.future.done()]
        for other in newest.refining:
            other.wanted = False
        newest.refining.append(self.worker.submit(job))
        job.future.add_done_callback(lambda future: send(end=True))
        return StreamingResponse(self._lines(wish, job, lines), media_type="application/x-ndjson")

    async def _lines(self, wish: Wish, job: Job, lines: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[bytes]:
        steps = 0
        try:
            while "end" not in (line := await lines.get()):
                steps = line["step"]
                yield f"{json.dumps(line)}\n".encode()
            error = job.future.exception()
            if isinstance(error, UserError):
                yield f"{json.dumps(job.told())}\n".encode()
            recipe = json.loads(replace(wish.recipe, refine=steps).dumps())
            yield f"{json.dumps({'done': True, 'steps': steps, 'recipe': recipe})}\n".encode()
        finally:
            job.wanted = False

    def _refine(self, wish: Wish, job: Job, send: Any) -> None:
        started = time.perf_counter()

        def on_step(step: int, image: Image.Image) -> bool:
            picture = base64.b64encode(encoded(image)).decode()
            send(step=step, of=wish.recipe.refine, seconds=round(time.perf_counter() - started, 3), image=picture)
            self.worker.pause()
            return not job.wanted

        self.studio.render(*self.cooked(wish), wish.recipe.refine, on_step)

    def _render(self, wish: Wish) -> tuple[bytes, float, int, str]:
        started = time.perf_counter()
        opened = wish.opened
        image = self.studio.render(*self.cooked(wish), wish.recipe.refine, size=wish.recipe.size)
        return encoded(image), time.perf_counter() - started, opened.version, opened.state

    def wish(self, body: dict[str, Any]) -> Wish:
        """What a page asks for. Raises: UserError when it cannot be meant, MissingStyles, HTTPException 404."""
        opened = found(self.portraits.open, text_in(body, "portrait"), "portrait")
        recipe = recipes.loads(json.dumps(body.get("recipe")))
        edit.checked(self.studio.ctx, recipe.edits)
        ticket, purpose = body.get("ticket", 0), text_in(body, "purpose", "exact")
        if type(ticket) is not int or ticket < 0 or purpose not in PURPOSES:
            raise UserError(f"ticket is a whole number and purpose {' or '.join(PURPOSES)}; reload the page")
        missing = [told for told in recipe.styles.values() if self.styles.by_sha256(told["sha256"]) is None]
        if missing:
            raise MissingStyles(missing)
        opened.read()
        return Wish(recipe, opened, text_in(body, "page", "page"), ticket, purpose)

    def _newest(self, wish: Wish) -> Newest:
        """What the page asked last. Raises: Outdated when that was newer."""
        newest = self._pages.setdefault(wish.page, Newest())
        self._pages.move_to_end(wish.page)
        while len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        if wish.ticket < newest.ticket and wish.purpose != "keyframe":
            raise Outdated
        return newest


def encoded(image: Image.Image) -> bytes:
    """The picture as a PNG, quickly."""
    return images.encode(np.asarray(image))
