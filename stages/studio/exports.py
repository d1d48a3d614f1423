"""What is taken away: pictures with their recipe, strips, walks, recipes, and several portraits in one look."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline import images
from pipeline.errors import UserError
from pipeline.reports import films
from pipeline.sources.keys import key_of
from stages.apply import large
from stages.apply import recipe as recipes
from stages.studio.answers import body_of, done, found, text_in
from stages.studio.portraits import MOST, Opened
from stages.studio.rendering import Rendering, Wish, encoded
from stages.studio.worker import Job, Rank

FILES = {
    "png": ("hypernst.png", "image/png"),
    "png-bare": ("hypernst.png", "image/png"),
    "strip": ("hypernst-strip.png", "image/png"),
    "recipe": ("recipe.json", "application/json"),
    "walk": ("hypernst-walk.webm", "video/webm"),
    "batch": ("hypernst-batch.zip", "application/zip"),
}
LATER = ("walk", "batch")  # made by a job that the page follows; the others answer at once
STRIP, FRAMES = 7, 48  # pictures of a strip, and of a walk


class Exports:
    """Makes files of what the page shows; portraits that are still a draft are read to their end first."""

    def __init__(self, rendering: Rendering) -> None:
        self.rendering, self.studio, self.worker = rendering, rendering.studio, rendering.worker
        self.makers: dict[str, Callable[[Wish], bytes]] = {
            "png": self._png,
            "png-bare": lambda wish: self._png(wish, with_recipe=False),
            "strip": lambda wish: self._walk(wish, STRIP, ".png"),
            "recipe": self._recipe,
            "walk": lambda wish: self._walk(wish, FRAMES, ".webm"),
        }

    async def export(self, request: Request) -> Response:
        """POST /api/export: a file, or the job that makes it."""
        body = await body_of(request)
        kind = text_in(body, "kind")
        if kind not in FILES:
            raise UserError(f"kind is not known here; expected one of {', '.join(FILES)}")
        body |= {"purpose": "exact"}
        if "size" in body and isinstance(body.get("recipe"), dict):
            body["recipe"] |= {"size": body["size"]}
        if kind == "batch":
            opened = self._several(body)
            wish = self.rendering.wish({**body, "portrait": opened[0].id})
            job = Job(kind, Rank.BATCH, lambda job: self._batch(wish, opened, job))
        else:
            wish = self.rendering.wish(body)
            large.checked(self.studio.ctx, wish.recipe.size)
            job = Job(kind, Rank.EXPORT, lambda job: self.makers[kind](wish), wish.opened.id)
        self.worker.submit(job)
        if kind in LATER:
            return JSONResponse({"job": job.id}, 202)
        return _file(await done(request, self.worker, job), kind)

    def _several(self, body: dict[str, Any]) -> list[Opened]:
        ids = body.get("portraits")
        if not isinstance(ids, list) or not 0 < len(ids) <= MOST or not all(isinstance(one, str) for one in ids):
            raise UserError(f"portraits are not 1 to {MOST} ids; open some")
        return [found(self.rendering.portraits.open, one, "portrait") for one in ids]

    def _png(self, wish: Wish, with_recipe: bool = True) -> bytes:
        recipe = wish.recipe
        portrait, look = self.rendering.cooked(wish)
        image = self.studio.render(portrait, look, recipe.refine, size=recipe.size)
        made = self.studio.recipe(portrait, look, recipe.refine, recipe.size) if with_recipe else None
        return recipes.mark(encoded(image), made)

    def _recipe(self, wish: Wish) -> bytes:
        return self.studio.recipe(*self.rendering.cooked(wish), wish.recipe.refine, wish.recipe.size).dumps().encode()

    def _walk(self, wish: Wish, count: int, kind: str) -> bytes:
        portrait, look = self.rendering.cooked(wish)
        frames = self.studio.walk(portrait, [look], count, wish.recipe.refine)
        return films.encoded(kind, frames, lambda rgb: recipes.mark(images.encode(rgb), None))

    def _batch(self, wish: Wish, portraits: list[Opened], job: Job) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as box:
            for number, opened in enumerate(portraits):
                job.counts, job.done, job.of = True, number, len(portraits)
                if opened.portrait is not None:
                    box.writestr(f"{number + 1:02}-{key_of(opened.name)}.png", self._png(replace(wish, opened=opened)))
        return made.getvalue()


def exported(job: Job) -> Response:
    """The file that a job made. Raises: HTTPException 404 while there is none."""
    if job.kind not in LATER or job.state != "done":
        raise HTTPException(404, "this file is not made (yet)")
    return _file(job.future.result(), job.kind)


def _file(data: bytes, kind: str) -> Response:
    name, media_type = FILES[kind]
    return Response(data, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
