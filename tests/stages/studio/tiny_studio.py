"""A studio's server on untrained networks at 32 px, and a browser of few words that talks to it without a network."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent import futures
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch

import hypernst
from models.generators.stylegan2 import StyleGAN2
from pipeline import images
from pipeline.training import checkpoint
from stages.loaders import directions
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.studio.app import Server
from stages.studio.guard import Pass

ADDRESS = "http://127.0.0.1:7717"
Told = dict[str, Any]


def picture(seed: int) -> bytes:
    """A PNG of coloured squares."""
    rgb = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    return images.encode(rgb)


PROFILE = """
name = "tiny with all"
extends = "tiny"
[generator]
weights = "{folder}/generator.safetensors"
[align]
detector = "yunet"
no_face = "reject"
[inverter]
steps = 1
[train]
refinement_iterations = 1
[editing]
directions = ["{folder}/directions.safetensors"]
"""


def studio(folder: Path) -> hypernst.Studio:
    """A facade on untrained networks whose heads are not silent; its profile is in folder/tiny.toml.

    There is a face detector, portraits are read as a draft first, pictures can be refined, edited by age and smile, and
    had at 64 px.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checkpoint.save(folder / "generator.safetensors", StyleGAN2(64, 0.25).state_dict(), {})
    path = folder / "tiny.toml"
    path.write_text(PROFILE.format(folder=folder))
    ctx = hypernst.load(path, cache=None, device="cpu").ctx
    generator = generators.generator(ctx)
    told = {"mapping": directions.mapping_digest(generator)}
    checkpoint.save(folder / "directions.safetensors", {"age": torch.eye(512)[0], "smile": torch.eye(512)[1]}, told)
    net = hypernetworks.new_hypernetwork(ctx, generator.layer_table())
    for head in net.heads:
        torch.nn.init.normal_(head.out.weight, 0, 0.3)
    checkpoint.save(folder / "run" / "checkpoint.safetensors", {f"ema.{n}": t for n, t in net.state_dict().items()}, {})
    return hypernst.load(path, cache=folder / "cache", run=folder / "run", device="cpu")


class Browser:
    """A browser that opened the link of a server's `entry`, in the same process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()  # in a thread of its own: playwright's runs in the tests' one
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        transport = httpx2.ASGITransport(server.app(), raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url=ADDRESS)
        self.run(self._start())
        assert self.get(f"/?k={server.entry.key}").status_code == 303
        self.page = 0

    async def _start(self) -> None:
        self.server.events.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine gives."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """The answer to GET."""
        return self.run(self.client.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx2.Response:
        """The answer to POST."""
        return self.run(self.client.post(path, **options))

    def delete(self, path: str) -> httpx2.Response:
        """The answer to DELETE."""
        return self.run(self.client.delete(path))

    def settled(self, told: httpx2.Response) -> Told:
        """A job when it ended, with the id of what it made."""
        assert told.status_code == 202, told.text
        id = told.json()["job"]
        futures.wait([self.server.jobs[id].future])
        return self.get(f"/api/jobs/{id}").json() | told.json()

    def opened(self, data: bytes, name: str = "me.png") -> Told:
        """A portrait, open and read: its face, or its centre."""
        job = self.settled(self.post(f"/api/portraits?name={name}", content=data))
        if job["state"] == "failed":
            self.settled(self.post(f"/api/portraits/{job['id']}/face", json={"centre": True}))
        return self.get(f"/api/portraits/{job['id']}").json()

    def style(self, data: bytes, name: str = "klimt.png") -> Told:
        """A style, on the shelf and read."""
        job = self.settled(self.post(f"/api/styles?name={name}", content=data))
        assert job["state"] == "done", job
        return next(style for style in self.get("/api/styles").json() if style["id"] == job["id"])

    def recipe(self, portrait: Told, *styles: Told, t: float = 1.0, refine: int = 0) -> Told:
        """The recipe of all styles mixed evenly in every region."""
        about = self.get("/api/about").json()
        named = dict(zip("abcdefgh", styles, strict=False))
        part = {"mix": {letter: 1 / len(named) for letter in named}, "t": t}
        return {
            "hypernst": 1,
            "profile": about["profile"],
            "weights": about["weights"],
            "portrait": portrait["portrait"],
            "styles": {key: {name: style[name] for name in ("key", "sha256", "title")} for key, style in named.items()},
            "regions": dict.fromkeys(("hair", "face", "background"), part),
            "refine": refine,
        }

    def wish(self, portrait: Told, *styles: Told, **options: Any) -> Told:
        """What is sent to have a recipe rendered, with the next ticket."""
        self.page += 1
        recipe = self.recipe(portrait, *styles, **options)
        return {"recipe": recipe, "portrait": portrait["id"], "page": "tab", "ticket": self.page}


def start(folder: Path, **options: Any) -> Browser:
    """A server and the browser that opened it."""
    return Browser(Server(studio(folder), Pass(7717, token="t" * 32), **options))
