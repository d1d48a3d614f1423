"""One tiny studio and one Chromium for all tests of the page; without a browser they are skipped, and say why."""

import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import images
from pipeline.progress import pause
from tests.stages.studio import tiny_studio

WAIT = 60.0  # seconds for anything on the page
PAGES = Path(__file__).parent
FACES = PAGES.parents[1] / "stages" / "studio" / "faces"


def chromium() -> str | None:
    """The browser that CHROMIUM names, or one on PATH."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing() -> str:
    """Why there can be no browser test here; "" when there can."""
    try:
        import axe_playwright_python  # noqa: F401
        import playwright  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        return f"no browser tests: the package {error.name} is not installed"
    return "" if chromium() else "no browser tests: there is no Chromium; install chromium or name one with CHROMIUM="


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if item.path.is_relative_to(PAGES):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.weights)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if any("tests/browser/" in report.nodeid for report in skipped):
        terminalreporter.write_line(missing())


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def two_faces() -> bytes:
    """A picture of two people."""
    each = [images.decode((FACES / f"face-{number}.jpg").read_bytes(), 300) for number in (1, 2)]
    return images.encode(np.concatenate(each, 1))


@dataclass
class Served:
    """A studio behind a real port.

    `delay` makes each picture so many seconds slower; the portrait that is called `draft` stays one.
    """

    folder: Path
    port: int
    delay: float = 0.0
    draft: str = ""
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.studio = tiny_studio.studio(self.folder)
        render, read = self.studio.render, self.studio.read

        def slow(*asked: Any, **more: Any) -> Any:
            time.sleep(self.delay)
            return render(*asked, **more)

        def held(*asked: Any, **more: Any) -> Any:
            while self.draft and self.draft == more.get("name") and "face" in more and not more.get("draft"):
                time.sleep(0.01)
                pause()
            return read(*asked, **more)

        self.studio.render, self.studio.read = slow, held  # type: ignore[method-assign]

    def start(self) -> None:
        """Serve until `stop`, as `hypernst studio` does."""
        import uvicorn

        from stages.studio.app import Server
        from stages.studio.guard import Pass
        from stages.studio.serve import UVICORN

        entry = Pass(self.port, token="t" * 32)
        entry.renewed = self.links.append
        self.links.append(entry.link)
        self.behind = Server(self.studio, entry, (self.folder / "styles",))
        self.server = uvicorn.Server(uvicorn.Config(self.behind.app(), port=self.port, **UVICORN))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), f"port {self.port} is taken"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in the middle of whatever it does."""
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.behind.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "styles").mkdir()
    for number in range(4):
        (folder / "styles" / f"squares {number}.png").write_bytes(tiny_studio.picture(100 + number))
    made = Served(folder, free_port())
    made.start()
    yield made
    made.stop()


@contextmanager
def launched() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with launched() as started:
        yield started


class Desk:
    """A page of the studio, and what a person does there. `wrong` collects what it must never do.

    It does not refine, so that pictures stay as they are.
    """

    def __init__(self, context: Any, link: str) -> None:
        self.context, self.link, self.wrong, self.on_way = context, link, [], []
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * WAIT)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.page.on("requestfinished", self._finished)
        self.page.on("requestfailed", self._finished)
        self.page.goto(link)
        self.find(".tile").first.wait_for()
        self.find("#refine-at-rest").dispatch_event("click")

    def _console(self, message: Any) -> None:
        if "Content Security Policy" in message.text or "Uncaught" in message.text:
            self.wrong.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.link.split("?")[0], "blob:")):
            self.wrong.append(f"asked for {request.url}")
        if request.url.endswith("/api/render"):
            self.on_way.append(request)

    def _finished(self, request: Any) -> None:
        if request in self.on_way:
            self.on_way.remove(request)

    def find(self, selector: str, **options: Any) -> Any:
        """What a CSS selector finds."""
        return self.page.locator(selector, **options)

    def until(self, true: Callable[[], Any]) -> Any:
        """What `true` gives as soon as that is true; the page's CSP forbids Playwright's own waiting for functions."""
        end = time.monotonic() + WAIT
        while not (found := true()):
            assert time.monotonic() < end, self.find("#badge, #toast, #banner").all_text_contents()
            self.page.wait_for_timeout(50)
        return found

    def open_sample(self) -> None:
        """Open a sample face, which takes the first style, and wait for its exact picture."""
        self.find(".sample").first.click()
        self.find("#frame").wait_for()
        self.until(lambda: self.find(".tile[aria-selected=true]").count() == 1)
        self.settle()

    def settle(self, state: str = "exact") -> None:
        """Wait until the portrait and its regions are here, and the badge says this of the picture."""
        self.until(lambda: self.badge() == state and self.find("#overlay").is_enabled())

    def badge(self) -> str | None:
        """What the badge says of the picture, once what was changed until now is painted."""
        self.page.evaluate("new Promise(requestAnimationFrame)")
        return self.find("#badge").get_attribute("data-state")

    def rest(self) -> None:
        """Wait until the picture is exact, and what to fade between is here."""
        self.settle()
        quiet = 0
        while quiet < 5:
            self.page.wait_for_timeout(50)
            self.badge()  # a page that is slow is not at rest
            quiet = 0 if self.on_way else quiet + 1

    def style(self, number: int, **options: Any) -> None:
        """Click a style of the test's own."""
        self.find(f'.tile[aria-label="squares {number}.png"]').click(**options)

    def picture(self) -> str:
        """What the canvas shows, as a digest."""
        self.page.evaluate("new Promise(requestAnimationFrame)")
        shown = self.page.evaluate("document.getElementById('picture').toDataURL()")
        return hashlib.sha256(shown.encode()).hexdigest()

    def drop(self, *files: tuple[bytes, str], at: str = "#picture") -> None:
        """Drop files, bytes and names, on a part of the page."""
        self.page.evaluate(
            """([files, at]) => {
                const dropped = new DataTransfer();
                for (const [bytes, name] of files) dropped.items.add(new File([new Uint8Array(bytes)], name));
                const event = new DragEvent("drop", { dataTransfer: dropped, bubbles: true });
                document.querySelector(at).dispatchEvent(event);
            }""",
            [[[list(data), name] for data, name in files], at],
        )

    def told_of(self, name: str) -> dict[str, Any]:
        """What the server says of the open portrait of this name; {} when there is none."""
        told = self.page.evaluate("fetch('/api/portraits').then(answer => answer.json())")
        return next((one for one in told if one["name"] == name), {})

    def faults(self) -> list[str]:
        """What axe finds that keeps people out."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]

    def strength(self, target: str = "whole") -> Any:
        """The slider of a region's strength."""
        return self.find(f'[data-key="strength-{target}"]')


def desks(served: Served, views: Iterable[dict[str, Any]]) -> Iterator[Desk]:
    """Serve, and open a page of the studio for each view, as Playwright's options; each finds no portrait open."""
    served.start()
    with launched() as browser:
        for view in views:
            context = browser.new_context(reduced_motion="reduce", **view)
            yield Desk(context, served.links[-1])
            context.close()
            for opened in [*served.behind.portraits.open.values()]:
                served.behind.portraits.forget(opened)
    served.stop()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    yield made
    made.close()


@pytest.fixture
def desk(context: Any, served: Served) -> Iterator[Desk]:
    made = Desk(context, served.links[-1])
    yield made
    served.delay, served.draft = 0.0, ""
    assert made.wrong == []
