"""Reading requests and writing answers: bodies of limited size, JSON, and faults in the words that the page shows."""

import asyncio
import json
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from pipeline.errors import UserError
from pipeline.progress import say
from stages.studio.worker import Busy, Cancelled, Job, Worker, in_words

MOST_PICTURE, MOST_JSON = 32 << 20, 64 << 10
UNCHANGING = {"Cache-Control": "private, max-age=31536000, immutable"}
WAYS_OUT = {
    403: "open the link that the command printed last",
    404: "reload the page",
    405: "reload the page",
    413: f"a picture has at most {MOST_PICTURE >> 20} MB, other requests {MOST_JSON >> 10} kB",
}
Found = TypeVar("Found")


class MissingStyles(UserError):
    """Raised for a recipe whose styles are not on the shelf; `missing` are their parts of the recipe."""

    def __init__(self, missing: list[Any]) -> None:
        titles = ", ".join(str(told.get("title") or told.get("key") or told["sha256"][:12]) for told in missing)
        super().__init__(f"the recipe's style {titles} is not here; add its picture")
        self.missing = [dict(told) for told in missing]


class Outdated(Exception):
    """Raised for what a newer request of the same page has replaced."""


def fault(status: int, error: str, way_out: str = "", **more: Any) -> Response:
    """An error as the page shows it."""
    return JSONResponse({"error": error, "way_out": way_out} | more, status)


async def on_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: unknown addresses and methods, bodies that are too large."""
    assert isinstance(error, HTTPException)
    return fault(error.status_code, error.detail, WAYS_OUT.get(error.status_code, ""))


async def on_user_error(request: Request, error: Exception) -> Response:
    """Faults of what was sent: 429 when too much waits, else 422."""
    more = {"missing": error.missing} if isinstance(error, MissingStyles) else {}
    return JSONResponse(in_words(error) | more, 429 if isinstance(error, Busy) else 422)


async def on_outdated(request: Request, error: Exception) -> Response:
    """A newer request came, or the job was cancelled."""
    return fault(409, "a newer change came first")


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The page waits no longer; nobody reads this."""
    return Response(status_code=499)


async def on_other(request: Request, error: Exception) -> Response:
    """What nobody foresaw: told in the terminal."""
    say(f"studio: {type(error).__name__}: {error}")
    return JSONResponse(in_words(error), 500)


HANDLERS: dict[Any, Any] = {
    HTTPException: on_http,
    UserError: on_user_error,
    Outdated: on_outdated,
    Cancelled: on_outdated,
    ClientDisconnect: on_disconnect,
    Exception: on_other,
}


async def limited(request: Request, most: int) -> bytes:
    """The body of a request, cut off while it streams. Raises: HTTPException 413 when it is longer than `most`."""
    data = bytearray()
    if int(request.headers.get("content-length", "0")) <= most:
        async for piece in request.stream():
            data += piece
            if len(data) > most:
                break
        else:
            return bytes(data)
    raise HTTPException(413, "too large")


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries. Raises: UserError when it carries none."""
    try:
        told = json.loads(await limited(request, MOST_JSON))
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error}); reload the page") from error
    if not isinstance(told, dict):
        raise UserError("not a JSON object; reload the page")
    return told


def text_in(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text field. Raises: UserError when it is missing or none."""
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > 255:
        raise UserError(f"{name} is missing or no short text; reload the page")
    return value


async def picture_in(request: Request) -> bytes:
    """The bytes of an uploaded picture. Raises: UserError when there are none."""
    data = await limited(request, MOST_PICTURE)
    if not data:
        raise UserError("empty file; choose a picture")
    return data


async def done(request: Request, worker: Worker, job: Job) -> Any:
    """What a job gives; it is cancelled when the page no longer waits for it."""
    future = asyncio.wrap_future(job.future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            worker.cancel(job)
            raise ClientDisconnect
        return future.result()
    finally:
        gone.cancel()
        future.cancel()  # if nobody waits any more, nobody asks how it ended


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def found(table: dict[str, Found], key: str, what: str) -> Found:
    """An entry by the id that a page sent. Raises: HTTPException 404."""
    if key not in table:
        raise HTTPException(404, f"this {what} is not open here (any more)")
    return table[key]
