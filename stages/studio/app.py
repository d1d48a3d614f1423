"""The addresses of the studio, and what stands behind them."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline import __version__, images, weights
from pipeline.errors import UserError
from stages.apply import edit
from stages.apply.look import MOST_STYLES
from stages.apply.recipe import MOST_STEPS
from stages.apply.studio import Studio
from stages.loaders import directions
from stages.loaders import generator as generators
from stages.studio import answers, portraits, styles
from stages.studio.answers import MOST_JSON, MOST_PICTURE, UNCHANGING, body_of, found, picture_in
from stages.studio.events import Events
from stages.studio.exports import FILES, Exports, exported
from stages.studio.guard import Guard, Pass
from stages.studio.portraits import Portraits
from stages.studio.rendering import Rendering
from stages.studio.shelf import Shelf
from stages.studio.styles import Styles, plain
from stages.studio.worker import Job, Rank, Worker
from stages.styles import library

STATIC = Path(__file__).parent / "static"
FACES = Path(__file__).parent / "faces"  # of the shipped generator: faces 1, 9 and 10 of `hypernst samples`, cropped
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp",
}  # fmt: skip
MOST_JOBS = 64  # that are remembered, with the files that they made


class Server:
    """The studio's parts, and the answer to each address. `close` ends the worker."""

    def __init__(self, studio: Studio, entry: Pass, folders: tuple[Path, ...] = (), cached: Path | None = None) -> None:
        self.studio, self.entry, self.instance = studio, entry, secrets.token_hex(4)
        self.events = Events(self.instance)
        self.jobs: dict[str, Job] = {}
        self.worker = Worker(self._tell)
        studio.progress, studio.note = self.worker.progress, lambda text: None  # it names the portraits
        self.styles = Styles(studio, self.worker, folders, cached)
        self.portraits = Portraits(
            studio, self.worker, lambda opened: self.events.tell("portrait", {"id": opened.id, "state": opened.state})
        )
        self.shelf = Shelf(self.styles, self.portraits)
        self.rendering = Rendering(studio, self.worker, self.portraits, self.styles)
        self.exports = Exports(self.rendering)
        self.faces = {place.name: place.read_bytes() for place in sorted(FACES.glob("*.jpg"))}
        places = sorted(STATIC.rglob("*")) if STATIC.is_dir() else []
        self.static = {
            place.relative_to(STATIC).as_posix(): (place.read_bytes(), KINDS[place.suffix])
            for place in places
            if place.suffix in KINDS
        }

    def warm(self) -> None:
        """Load the networks and read the sample faces when nothing else is asked for, for a fast first click."""

        def work(job: Job) -> None:
            self.studio.stylist()
            for name, data in self.faces.items():
                self.studio.read(data, name=name, draft=True)

        self.worker.submit(Job("warm", Rank.BATCH, work))

    def close(self) -> None:
        """End what is being computed."""
        self.worker.stop()

    def _tell(self, job: Job) -> None:
        if job.kind not in ("render", "refine", "forget", "warm"):
            self.jobs[job.id] = job
            while len(self.jobs) > MOST_JOBS:
                self.jobs.pop(next(iter(self.jobs)))
            self.events.tell("job", job.told())

    def app(self) -> ASGIApp:
        """The application, guarded."""

        @contextlib.asynccontextmanager
        async def life(app: Starlette) -> AsyncIterator[None]:
            self.events.start()
            yield

        routes = [
            Route("/", self.page),
            Route("/static/{name:path}", self.file),
            Route("/api/about", self.about),
            Route("/api/events", self.listen),
            Route("/api/jobs/{id}", self.job, methods=["GET"]),
            Route("/api/jobs/{id}", self.cancel, methods=["DELETE"]),
            Route("/api/portraits", self.open, methods=["POST"]),
            Route("/api/portraits", self.opened, methods=["GET"]),
            Route("/api/portraits/{id}", self.portrait, methods=["GET"]),
            Route("/api/portraits/{id}", self.forget_portrait, methods=["DELETE"]),
            Route("/api/portraits/{id}/face", self.choose, methods=["POST"]),
            Route("/api/portraits/{id}/{part}", self.part, methods=["GET"]),
            Route("/api/samples", self.samples),
            Route("/api/samples/{name}", self.sample),
            Route("/api/styles", self.shelf.add, methods=["POST"]),
            Route("/api/styles", self.shelf.list, methods=["GET"]),
            Route("/api/map", self.shelf.map),
            Route("/api/styles/{id}/thumb", self.shelf.thumb),
            Route("/api/render", self.rendering.render, methods=["POST"]),
            Route("/api/refine", self.rendering.refine, methods=["POST"]),
            Route("/api/export", self.exports.export, methods=["POST"]),
            Route("/api/exports/{id}", self.exported),
            Route("/api/forget", self.forget, methods=["POST"]),
        ]
        inner = Starlette(routes=routes, exception_handlers=answers.HANDLERS, lifespan=life)
        inner.router.redirect_slashes = False
        return Guard(inner, self.entry)

    async def page(self, request: Request) -> Response:
        """The page itself."""
        return self._static("index.html")

    async def file(self, request: Request) -> Response:
        """A file of the page, from the list made at the start."""
        return self._static(request.path_params["name"])

    def _static(self, name: str) -> Response:
        if name not in self.static:
            raise HTTPException(404, "there is no such file")
        data, kind = self.static[name]
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def about(self, request: Request) -> Response:
        """GET /api/about: versions, networks with their licences, and limits."""
        ctx = self.studio.ctx
        able, edits, moved_by = ctx.profile.train.refinement_iterations == 1, [], ""
        with contextlib.suppress(UserError):  # a profile may name directions that are not on this machine
            edits, moved_by = directions.offered(ctx), directions.sha256(ctx)
        return JSONResponse(
            {
                "version": __version__,
                "instance": self.instance,
                "profile": ctx.profile.name,
                "weights": await run_in_threadpool(self.studio.networks),
                "directions": moved_by,
                "terms": await run_in_threadpool(self._terms),
                "device": ctx.device,
                "size": ctx.profile.generator.size,
                "large": full if (full := generators.full_size(ctx)) > ctx.profile.generator.size else 0,
                "refine": able,
                "edits": edits,
                "exports": list(FILES),
                "shelf": "" if self.styles.filling.future.done() else self.styles.filling.id,
                "limits": {
                    "picture_bytes": MOST_PICTURE,
                    "recipe_bytes": MOST_JSON,
                    "portraits": portraits.MOST,
                    "own_styles": styles.MOST_OWN,
                    "styles_in_a_recipe": MOST_STYLES,
                    "refine": MOST_STEPS,
                    "edit": edit.MOST,
                },
            }
        )

    def _terms(self) -> list[dict[str, str]]:
        """What the program uses that others or this project made, and under which licence."""
        needed = {*weights.needed(self.studio.ctx.profile), library.PICTURES}
        told = ("name", "what", "licence", "origin")
        return [{n: entry[n] for n in told} for entry in weights.entries() if entry["name"] in needed]

    async def listen(self, request: Request) -> Response:
        """GET /api/events: what happens, as it happens."""
        last = request.headers.get("last-event-id", "")
        return StreamingResponse(self.events.listen(last), media_type="text/event-stream")

    async def job(self, request: Request) -> Response:
        """GET /api/jobs/ID: how far a job is."""
        return JSONResponse(found(self.jobs, request.path_params["id"], "job").told())

    async def cancel(self, request: Request) -> Response:
        """DELETE /api/jobs/ID: end a job."""
        self.worker.cancel(found(self.jobs, request.path_params["id"], "job"))
        return Response(status_code=204)

    async def open(self, request: Request) -> Response:
        """POST /api/portraits?name=: open a picture as a portrait."""
        opened, job = self.portraits.add(await picture_in(request), plain(request.query_params.get("name", "")))
        return JSONResponse({"id": opened.id, "job": job.id}, 202)

    async def opened(self, request: Request) -> Response:
        """GET /api/portraits: all that are open."""
        return JSONResponse([opened.told() for opened in self.portraits.open.values()])

    async def portrait(self, request: Request) -> Response:
        """GET /api/portraits/ID."""
        return JSONResponse(self._portrait(request).told())

    async def choose(self, request: Request) -> Response:
        """POST /api/portraits/ID/face: another face (from 1, from the left), or the centre."""
        opened, body = self._portrait(request), await body_of(request)
        index = body.get("index")
        if body.get("centre") is True:
            job = self.portraits.choose(opened, None, "keep")
        elif type(index) is int:
            job = self.portraits.choose(opened, index, opened.no_face)
        else:
            raise UserError("expected index, a number, or centre, true; reload the page")
        return JSONResponse({"id": opened.id, "job": job.id}, 202)

    async def forget_portrait(self, request: Request) -> Response:
        """DELETE /api/portraits/ID."""
        self.portraits.forget(self._portrait(request))
        return Response(status_code=204)

    async def part(self, request: Request) -> Response:
        """GET /api/portraits/ID/image, /regions.png or /source."""
        opened, part = self._portrait(request), request.path_params["part"]
        if part == "source" and opened.preview:
            return Response(opened.preview, media_type="image/webp")
        if part in ("image", "regions.png") and opened.portrait is not None:
            pixels = opened.portrait.image if part == "image" else opened.portrait.region
            if part == "regions.png":
                return Response(_labels(pixels), media_type="image/png")
            return Response(images.encode(pixels), media_type="image/png")
        raise HTTPException(404, "there is no such part of the portrait (yet)")

    async def samples(self, request: Request) -> Response:
        """GET /api/samples: the names of portraits to begin with."""
        return JSONResponse(list(self.faces))

    async def sample(self, request: Request) -> Response:
        """GET /api/samples/NAME: one of them, JPEG."""
        data = found(self.faces, request.path_params["name"], "sample")
        return Response(data, media_type="image/jpeg", headers=UNCHANGING)

    async def exported(self, request: Request) -> Response:
        """GET /api/exports/JOB: the file that a job made."""
        return exported(found(self.jobs, request.path_params["id"], "job"))

    async def forget(self, request: Request) -> Response:
        """POST /api/forget: close every portrait and own style; nothing of them is kept."""
        for opened in list(self.portraits.open.values()):
            self.portraits.forget(opened)
        self.styles.forget()
        self.jobs.clear()
        return Response(status_code=204)

    def _portrait(self, request: Request) -> portraits.Opened:
        return found(self.portraits.open, request.path_params["id"], "portrait")


def _labels(region: np.ndarray) -> bytes:
    """A region map [H, W] as a grey PNG whose values are the labels: 0 hair, 1 face, 2 background, 255 unknown."""
    return images.encode(np.repeat(region[..., None], 3, 2))
