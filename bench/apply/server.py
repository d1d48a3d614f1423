"""What a hand at the studio waits for, on the shipped weights: `python bench/apply/server.py [RENDERS]`.

The server runs as a process of its own, as users start it. Wall seconds depend on what else the machine does, the
server's processor seconds hardly.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psutil
import torch

import hypernst
from stages.apply.look import whole
from stages.studio.app import FACES
from stages.studio.rendering import encoded

Rows = list[tuple[str, str]]


class Clock:
    """Wall and processor seconds of what the server does, and its memory."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process

    def __call__(self, work: Callable[[], Any]) -> tuple[float, float, Any]:
        """Wall and the server's processor seconds of some work, and what it gave."""
        start = time.perf_counter(), self.spent()
        found = work()
        return time.perf_counter() - start[0], self.spent() - start[1], found

    def spent(self) -> float:
        """Processor seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def rest(self) -> None:
        """Wait until the server is done with what it does at its start."""
        before = -1.0
        while self.spent() - before > 0.05:
            before = self.spent()
            time.sleep(3)

    def megabytes(self) -> float:
        """Memory that is held."""
        return self.process.memory_info().rss / 1e6


def side_by_side(pairs: int = 30) -> Rows:
    """E_c, heads and generator of one portrait in one style, the inversion given, and the studio's exact picture of it.

    They take turns in one process, with the same threads and at strengths that were never rendered.
    """
    studio = hypernst.load(cache=None)
    face, style = studio.read(FACES / "face-2.jpg"), studio.read(FACES / "face-3.jpg", style=True)
    stylist = studio.stylist()
    prepared = stylist.prepare(face)

    def core(t: float) -> None:
        with torch.no_grad():
            stylist.hyper.features(torch.cat([prepared.image, prepared.inversion.clamp(-1, 1)], 1))
            deltas = stylist.deltas(prepared, whole(style, t).codes(face))
            stylist.generator(prepared.latent, deltas, prepared.where)

    def exact(t: float) -> None:
        encoded(studio.render(face, whole(style, t)))

    taken: dict[Callable[[float], None], list[tuple[float, float]]] = {core: [], exact: []}
    for number in range(2 * pairs):
        work = (core, exact)[number % 2]
        start = time.perf_counter(), time.process_time()
        work((number + 1) / (2 * pairs + 1))
        taken[work].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, spent = (exactly / alone for exactly, alone in zip(medians(taken[exact]), medians(taken[core]), strict=True))
    return [
        ("E_c, heads and generator alone, inversion given", seconds(taken[core])),
        ("exact picture as PNG, another strength", seconds(taken[exact])),
        ("the second to the first", f"{wall:.2f} of its time, {spent:.2f} of its processor time"),
    ]


def medians(taken: list[tuple[float, float]]) -> list[float]:
    """The medians of wall and of processor seconds."""
    return [median(each) for each in zip(*taken, strict=True)]


def seconds(taken: list[tuple[float, float]]) -> str:
    """The medians of wall and of processor seconds, in words."""
    wall, spent = medians(taken)
    return f"{wall:.2f} s, {spent:.2f} processor s (medians)"


def measure(client: httpx2.Client, clock: Clock, renders: int) -> Rows:
    """The rows that need a server."""
    about = client.get("/api/about").json()
    data = (FACES / "face-2.jpg").read_bytes() + b"\0"  # not the sample: nothing of it is kept

    def until(id: str, *states: str) -> dict[str, Any]:
        while (told := client.get(f"/api/portraits/{id}").json())["state"] not in states:
            time.sleep(0.02)
        return told

    style = client.get("/api/styles").json()[40]

    def wish(portrait: dict[str, Any], ticket: int, t: float = 1.0, **more: Any) -> dict[str, Any]:
        part = {"mix": {"a": 1.0}, "t": t}
        recipe = {name: about[name] for name in ("profile", "weights")} | {"hypernst": 1, "refine": 0}
        recipe |= {"portrait": portrait["portrait"], "regions": dict.fromkeys(("hair", "face", "background"), part)}
        recipe |= {"styles": {"a": {name: style[name] for name in ("key", "sha256", "title")}}}
        return {"recipe": recipe, "portrait": portrait["id"], "page": "bench", "ticket": ticket} | more

    def first() -> dict[str, Any]:
        told = until(client.post("/api/portraits?name=me.jpg", content=data).json()["id"], "draft", "ready")
        client.post("/api/render", json=wish(told, 0, purpose="keyframe")).raise_for_status()
        return told

    wall, spent, portrait = clock(first)
    rows = [("first picture of a new portrait (encoder's latent)", f"{wall:.1f} s, {spent:.1f} processor s")]
    wall, spent, portrait = clock(lambda: until(portrait["id"], "ready"))
    rows += [("then the final latent", f"{wall:.1f} s, {spent:.1f} processor s")]
    client.post("/api/render", json=wish(portrait, 1)).raise_for_status()
    taken, overheads, memory = [], [], []
    for number in range(renders):
        wall, spent, answer = clock(
            lambda n=number: client.post("/api/render", json=wish(portrait, n + 2, (n + 1) / (renders + 1)))
        )
        taken.append((wall, spent))
        overheads.append(wall - float(answer.raise_for_status().headers["x-seconds"]))
        memory.append(clock.megabytes())
    rows += [("the same by the server, request and answer included", seconds(taken))]
    rows += [("server's overhead beside the render", f"{1000 * median(overheads):.0f} ms (median)")]
    middle = memory[len(memory) // 2]
    rows += [(f"memory over {renders} renders", f"{memory[0]:.0f}, half-way {middle:.0f}, last {memory[-1]:.0f} MB")]
    return rows


def main(renders: int = 200) -> None:
    """Print a table."""
    rows = side_by_side()
    with TemporaryDirectory() as cache:
        start = time.perf_counter()
        command = [sys.executable, "-m", "stages.cli.main", "studio", "--no-open", "--port", "0", "--cache", cache]
        place = Path(__file__).resolve().parents[2]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=place
        ) as server:
            try:
                assert server.stdout is not None
                address, key = server.stdout.readline().split()[1].split("/?")
                with httpx2.Client(base_url=address, timeout=600) as client:
                    while client.get(f"/?{key}", follow_redirects=True).status_code != 200:
                        time.sleep(0.05)
                    wall, clock = time.perf_counter() - start, Clock(psutil.Process(server.pid))
                    rows += [("start to page", f"{wall:.1f} s, {clock.spent():.1f} processor s")]
                    clock.rest()
                    rows += measure(client, clock, renders)
            finally:
                server.terminate()
    print("| what | |\n|---|---|")
    for name, told in rows:
        print(f"| {name} | {told} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
