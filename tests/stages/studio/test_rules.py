"""The studio's rules of security: who gets an answer, what is taken, what is kept, told and logged."""

import io
import pickle
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline import ours, profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.studio import portraits, serve, worker
from stages.studio.guard import HEADERS, Pass
from stages.studio.worker import Job, Rank
from tests.stages.studio.tiny_studio import ADDRESS, Browser, picture
from tests.system.test_bad_inputs import ZOO

pytestmark = pytest.mark.weights


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "evil.example:7717"}, 400),
        ({"host": "127.0.0.1"}, 400),
        ({"host": "127.0.0.1:7718"}, 400),
        ({"host": "127.0.0.1.evil.example:7717"}, 400),
        ({"host": "192.168.0.2:7717"}, 400),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 403),
        ({"origin": "http://localhost:7717"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"cookie": ""}, 403),
        ({"cookie": "hypernst-7717=" + "u" * 32}, 403),
        ({"cookie": "hypernst-7717=é"}, 403),
        ({"host": "LOCALHOST:7717"}, 200),
        ({"host": "[::1]:7717"}, 200),
        ({"origin": ADDRESS, "sec-fetch-site": "same-origin"}, 200),
        ({"cookie": f"broken[]=;; hypernst-1=x; hypernst-7717={'t' * 32}"}, 200),
    ],
)
def test_only_the_own_page_gets_an_answer(browser: Browser, headers: dict[str, str], status: int) -> None:
    sent = {name: value.encode() for name, value in headers.items()}
    if "cookie" not in sent:
        sent["cookie"] = f"hypernst-7717={'t' * 32}".encode()
    browser.client.cookies.clear()
    answer = browser.get("/api/about", headers=sent)
    browser.client.cookies.set("hypernst-7717", "t" * 32)
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert status == 200 or set(answer.json()) == {"error", "way_out"}


def test_a_link_opens_one_browser(browser: Browser) -> None:
    told: list[str] = []
    browser.server.entry.renewed = told.append
    key = browser.server.entry.key
    assert browser.get(f"/?k={key}").status_code == 303 and not told  # it is in already
    browser.client.cookies.clear()
    assert browser.get("/?k=guessed").status_code == 403
    first = browser.get(f"/?k={key}")
    assert first.status_code == 303 and first.headers["location"] == "/"
    assert re.search(r"hypernst-7717=t{32}; HttpOnly; Path=/; SameSite=strict", first.headers["set-cookie"])
    browser.client.cookies.clear()
    assert browser.get(f"/?k={key}").status_code == 403
    assert browser.get(told[0].removeprefix(ADDRESS)).status_code == 303


def test_served_to_the_network_names_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    exposed = Pass(80, "0.0.0.0")
    assert exposed.knows("192.168.0.2") and exposed.knows("192.168.0.2:80") and not exposed.knows("evil.example")
    assert Pass(1, "studio.example").knows("studio.example:1") and not Pass(1, "studio.example").knows("x.example:1")
    with pytest.raises(UserError, match=r"--host 0\.0\.0\.0 lets others .* --i-know"):
        serve.run(Context(profile.load("tiny")), host="0.0.0.0")
    with serve._listen("127.0.0.1", 0) as one:
        address, port = one.getsockname()
        assert address == "127.0.0.1"
        socket.create_connection((address, port), 10).close()  # the link may be opened at once
        with pytest.raises(UserError, match="choose another --port"):
            serve._listen("127.0.0.1", port)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"the studio needs uvicorn; run `pip install 'hypernst\[studio\]'`"):
        serve.run(Context(profile.load("tiny")))


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size >> 20):
        yield bytes(1 << 20)


def test_bodies_are_cut_where_they_are_too_large(browser: Browser) -> None:
    many = 34 << 20
    for path in ("/api/portraits", "/api/styles"):
        for content in (bytes(many), pieces(many)):
            answer = browser.post(path, content=content)
            assert answer.status_code == 413 and "32 MB" in answer.json()["way_out"]
    for path in ("/api/render", "/api/refine"):
        assert browser.post(path, content=b'{"a": "' + b"x" * (64 << 10) + b'"}').status_code == 413
    assert browser.post("/api/render", content=b"{" * 1000).status_code == 422


def bomb() -> bytes:
    made = io.BytesIO()
    Image.new("1", (7000, 7000)).save(made, "PNG")
    return made.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty file"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not a picture in a known format"),
        (pickle.dumps([1, 2]), "not a picture in a known format"),
        (picture(0)[:-99], "damaged or truncated"),
        (bomb(), "million"),
    ],
)
def test_what_is_no_picture_is_told_in_words(browser: Browser, data: bytes, told: str) -> None:
    for table in ("portraits", "styles"):
        answer = browser.post(f"/api/{table}?name=me.jpg", content=data)
        job = answer.json() if answer.status_code == 422 else browser.settled(answer)
        assert told in job["error"] + job["way_out"] and "Traceback" not in str(job)
        if table == "portraits" and "id" in job:
            assert browser.get(f"/api/portraits/{job['id']}").json()["state"] == "failed"
            assert browser.delete(f"/api/portraits/{job['id']}").status_code == 204


def test_every_bad_file_that_users_have_is_refused_in_words(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    refused = 0
    for make, outcome in ZOO.values():
        if not any(outcome.values()):
            continue
        make()(place)
        if place.is_file() and not place.is_symlink():
            answer = browser.post("/api/styles", content=place.read_bytes())
            job = answer.json() if answer.status_code == 422 else browser.settled(answer)
            assert job.get("state") == "done" or "something went wrong" not in job["error"]
            refused += job.get("state") != "done"
        place.unlink()
    assert refused > 15 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2fapp.py", "/static/../app.py", "/static/%2e%2e/serve.py", "/static//etc/passwd", "/static/",
        "/api/portraits/..%2f..", "/api/portraits/0/image", "/api/styles/..%2fx/thumb", "/api/jobs/0",
        "/api/samples/..%2f__init__.py", "/nowhere",
    ],
)  # fmt: skip
def test_no_path_comes_from_the_page(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404 and set(answer.json()) == {"error", "way_out"}


def test_so_much_is_open_and_waits_at_most(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def hold(job: Job) -> None:
        monkeypatch.setattr(portraits, "MOST", 1)
        first = browser.post("/api/portraits", content=picture(100))
        assert browser.post("/api/portraits", content=picture(101)).status_code == 429
        waiting = [Job("style", Rank.BATCH, lambda job: done.append(1)) for _ in range(worker.MOST_WAITING)]
        for other in waiting[:-1]:
            browser.server.worker.submit(other)
        answer = browser.post("/api/styles", content=picture(102))
        assert answer.status_code == 429 and "jobs are waiting" in answer.json()["error"]
        assert browser.delete(f"/api/portraits/{first.json()['id']}").status_code == 204  # that is always taken
        for other in waiting[:-1]:
            browser.server.worker.cancel(other)

    ended = browser.server.worker.submit(Job("test", Rank.EXACT, hold)).future
    ended.result(60)
    assert not done


def test_nothing_of_a_session_stays(browser: Browser, tmp_path: Path) -> None:
    kept = browser.server.studio.ctx.cache / ours.PORTRAITS
    opened, style = browser.opened(picture(0)), browser.style(picture(1))
    assert len(list(kept.iterdir())) >= 2
    assert browser.get(f"/api/portraits/{opened['id']}/image").status_code == 200
    assert browser.post("/api/forget").status_code == 204
    browser.server.worker.submit(Job("test", Rank.BATCH, lambda job: None)).future.result(60)
    assert [place for place in kept.iterdir() if place.name != ours.LOCK] == []
    assert browser.get(f"/api/portraits/{opened['id']}").status_code == 404
    assert style["id"] not in [other["id"] for other in browser.get("/api/styles").json()]
    assert browser.server.studio.memory.held == 0

    left = tmp_path / ours.STUDIO / ours.PORTRAITS / f"{'0' * 32}-{'1' * 8}" / "images.h5"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a studio that was killed")
    with serve.session(tmp_path) as (folder, token):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and not left.exists()
        left.parent.mkdir(parents=True)
        with pytest.raises(UserError, match="in use by stage studio"), serve.session(tmp_path):
            pass
    assert not left.parent.exists()
    with serve.session(tmp_path) as (_, again):
        assert again == token and len(token) >= 32
    other, theirs = tmp_path / "cache of others", tmp_path / "mine"
    other.mkdir()
    theirs.mkdir(mode=0o755)
    (other / ours.STUDIO).symlink_to(theirs)
    with pytest.raises(UserError, match="is a link, which the studio does not follow"), serve.session(other):
        pass
    assert list(theirs.iterdir()) == [] and stat.S_IMODE(theirs.stat().st_mode) == 0o755


def test_nothing_of_a_portraits_exif_data_comes_out(browser: Browser) -> None:
    told, data = Image.Exif(), io.BytesIO()
    told[0x013B], told[0x010F] = "Anna Artist", "Anna's camera"
    Image.open(io.BytesIO(picture(0))).save(data, "JPEG", exif=told)
    assert b"Anna" in data.getvalue()
    me, style = browser.opened(data.getvalue(), "me.jpg"), browser.style(picture(1))
    wish = browser.wish(me, style)
    shown = [browser.get(f"/api/portraits/{me['id']}/{part}") for part in ("image", "source", "regions.png")]
    saved = [browser.post("/api/export", json=wish | {"kind": kind}) for kind in ("png", "png-bare", "recipe")]
    for answer in (*shown, *saved, browser.post("/api/render", json=wish)):
        assert answer.status_code == 200 and b"Anna" not in answer.content and b"Exif" not in answer.content


def test_what_it_uses_is_told_with_its_licence(browser: Browser) -> None:
    terms = browser.get("/api/about").json()["terms"]
    assert {"lpips-vgg", "yunet", "paintings"} <= {one["name"] for one in terms}
    assert all(one["what"] and one["licence"] and one["origin"] for one in terms)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_fetched_while_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    faults: list[str] = []

    def visit(link: str) -> None:
        try:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
            weights.path("yunet")
        except UserError as error:
            faults.append(str(error))
        signal.raise_signal(number)

    monkeypatch.setattr(serve.webbrowser, "open", visit)
    before = signal.getsignal(number)
    assert serve.run(Context(profile.load("tiny"), cache=tmp_path), port=0) == 0
    assert len(faults) == 1 and "yunet: not on this machine" in faults[0]
    assert signal.getsignal(number) == before


def test_the_log_names_nobody(browser: Browser, capsys: pytest.CaptureFixture[str]) -> None:
    opened = browser.opened(picture(0), "anna.png")
    browser.get(f"/api/portraits/{opened['id']}/image")
    lines = capsys.readouterr().err
    assert "studio: GET /api/portraits/{id}/{part} 200 " in lines
    assert "anna" not in lines and opened["id"][:8] not in lines
