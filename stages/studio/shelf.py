"""The addresses of styles: found by name or likeness, on a map, as thumbnails, and added."""

import hashlib
import json
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.errors import UserError
from stages.studio import styles
from stages.studio.answers import UNCHANGING, found, picture_in
from stages.studio.portraits import Portraits
from stages.studio.styles import Styles, plain
from stages.styles.blocks import WHOLE


class Shelf:
    """Answers about styles; a portrait may be what they are compared with."""

    def __init__(self, shelf: Styles, portraits: Portraits) -> None:
        self.styles, self.portraits = shelf, portraits

    async def add(self, request: Request) -> Response:
        """POST /api/styles?name=: put a picture on the shelf."""
        style, job = self.styles.add(await picture_in(request), plain(request.query_params.get("name", "")))
        return JSONResponse({"id": style.id, "job": job.id}, 202)

    async def list(self, request: Request) -> Response:
        """GET /api/styles: the styles with a text in their title; likest first to `near`, a portrait or a style."""
        asked = request.query_params
        text, near, region, k = (asked.get(n, d) for n, d in (("text", ""), ("near", ""), ("region", WHOLE), ("k", "")))
        if not near:
            return JSONResponse([style.told() for style in self.styles.find(text)])
        most = int(k) if k.isdecimal() and len(k) < 6 else len(self.styles.all)
        found = self.styles.like(self._code(near, styles.place_of(region)), region, max(most, 1), text)
        return JSONResponse([style.told(likeness) for style, likeness in found])

    def _code(self, id: str, index: int) -> np.ndarray:
        """The code [256] of an open portrait or a style. Raises: UserError when it has none of this region."""
        if id in self.portraits.open:
            image: Any = self.portraits.open[id].portrait
        else:
            image = found(self.styles.all, id, "picture")
        if image is None or image.codes is None:
            raise UserError("this picture is not read yet; try again when it is")
        if not styles.has(image.valid, index):
            raise UserError("this picture has no such region; compare the whole")
        return np.asarray(image.codes[index], np.float32)

    async def map(self, request: Request) -> Response:
        """GET /api/map?region=: places in [0, 1] of styles, x and y in turn; alike ones are near."""
        ids, places = self.styles.map(request.query_params.get("region", WHOLE))
        body = json.dumps({"ids": ids, "places": [round(float(v), 4) for v in places.ravel()]}).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def thumb(self, request: Request) -> Response:
        """GET /api/styles/ID/thumb."""
        style = found(self.styles.all, request.path_params["id"], "style")
        data = await run_in_threadpool(self.styles.thumb, style)
        return Response(data, media_type="image/webp", headers=UNCHANGING)
