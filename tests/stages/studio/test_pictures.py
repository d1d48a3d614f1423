"""From a portrait to a picture through the server: the same bytes as `stylize`, the newest wish first, taken away."""

import asyncio
import base64
import io
import json
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline import images, ours
from stages.apply import recipe as recipes
from stages.apply import walk
from stages.studio import exports
from stages.studio.app import FACES
from stages.studio.worker import Job, Rank
from tests.stages.studio.tiny_studio import Browser, Told, picture

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def me(browser: Browser) -> Told:
    return browser.opened(picture(0), "me.png")


@pytest.fixture(scope="module")
def styles(browser: Browser) -> list[Told]:
    return [browser.style(picture(i), f"{name}.png") for i, name in ((1, "klimt"), (2, "hokusai"))]


def pixels(data: bytes) -> np.ndarray:
    return images.decode(data)


def test_a_render_gives_what_stylize_gives(browser: Browser, me: Told, styles: list[Told]) -> None:
    assert me["state"] == "ready" and me["portrait"]["no_face"] == "keep" and me["version"] == 2
    studio, (a, b) = browser.server.studio, styles
    content = studio.read(picture(0), no_face="keep", name="me.png")
    for chosen, t in (((a,), 1.0), ((a,), 0.36), ((a, b), 1.0), ((b,), 0.0)):
        answer = browser.post("/api/render", json=browser.wish(me, *chosen, t=t))
        assert answer.status_code == 200 and answer.headers["x-state"] == "ready" and answer.headers["x-version"] == "2"
        expected = studio.stylize(content, [picture(1 + styles.index(s)) for s in chosen], t, refine=0)
        assert np.array_equal(pixels(answer.content), np.asarray(expected))
    wish = browser.wish(me, a, b)
    wish["recipe"]["regions"]["hair"] = {"mix": {"b": 1.0}, "t": 0.5}
    wish["recipe"]["regions"]["background"] = {"mix": {}, "t": 0}
    expected = studio.stylize(content, {"hair": picture(2), "face": [picture(1), picture(2)]}, {"hair": 0.5}, refine=0)
    assert np.array_equal(pixels(browser.post("/api/render", json=wish).content), np.asarray(expected))


def test_the_newest_ticket_wins_and_keyframes_wait(browser: Browser, me: Told, styles: list[Told]) -> None:
    first, keyframe, second = (browser.wish(me, styles[0], t=t) for t in (0.1, 0.2, 0.3))
    keyframe |= {"purpose": "keyframe", "ticket": 0}
    go = threading.Event()
    blocking = browser.server.worker.submit(Job("test", Rank.EXACT, lambda job: go.wait(60)))

    async def all_three() -> list[Any]:
        posts = [asyncio.create_task(browser.client.post("/api/render", json=w)) for w in (first, keyframe, second)]
        while not posts[0].done():  # it is answered while the networks are still at work
            await asyncio.sleep(0.01)
        assert not blocking.future.done()
        go.set()
        return await asyncio.gather(*posts)

    answers = browser.run(all_three())
    assert [answer.status_code for answer in answers] == [409, 200, 200]
    assert answers[2].headers["x-ticket"] == str(second["ticket"])
    assert browser.post("/api/render", json=first).status_code == 409  # it comes late
    assert browser.post("/api/render", json=first | {"page": "another tab"}).status_code == 200


def test_refinement_is_told_step_by_step_and_ends_when_the_hand_moves(
    browser: Browser, me: Told, styles: list[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = browser.server.studio
    content, style = studio.read(picture(0), no_face="keep", name="me.png"), picture(1)
    lines = [
        json.loads(line)
        for line in browser.post("/api/refine", json=browser.wish(me, styles[0], refine=1)).iter_lines()
    ]
    assert [line["step"] for line in lines[:-1]] == [0, 1] and lines[-1]["steps"] == 1
    assert lines[-1]["recipe"]["refine"] == 1 and recipes.loads(json.dumps(lines[-1]["recipe"]))
    seen = [pixels(base64.b64decode(line["image"])) for line in lines[:-1]]
    told: list[str] = []
    monkeypatch.setattr(studio, "progress", lambda what, done, of: told.append(what))
    saved = browser.post("/api/export", json=browser.wish(me, styles[0], refine=1) | {"kind": "png"})
    assert (
        np.array_equal(pixels(saved.content), seen[1]) and "refine" not in told
    )  # it was watched: nothing is repeated
    again = browser.post("/api/refine", json=browser.wish(me, styles[0], refine=1)).iter_lines()
    assert [json.loads(line).get("step") for line in again] == [1, None] and "refine" not in told
    monkeypatch.undo()
    studio.memory.clear()
    for step, picture_seen in enumerate(seen):
        assert np.array_equal(picture_seen, np.asarray(studio.stylize(content, style, refine=step)))

    long, moved_on = browser.wish(me, styles[0], refine=1000), browser.wish(me, styles[0], t=0.7)

    async def moved() -> tuple[Any, Any]:
        refining = asyncio.create_task(browser.client.post("/api/refine", json=long))
        while not any(job.of == 1000 for job in browser.server.rendering._pages["tab"].refining):
            await asyncio.sleep(0.01)
        newer = await browser.client.post("/api/render", json=moved_on)
        return newer, await refining

    newer, refined = browser.run(moved())
    assert newer.status_code == 200 and json.loads([*refined.iter_lines()][-1])["steps"] < 1000


def test_what_is_taken_away(
    browser: Browser, me: Told, styles: list[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((exports, "STRIP", 3), (exports, "FRAMES", 4), (walk, "KEYS", 2)):
        monkeypatch.setattr(module, name, value)
    wish = browser.wish(me, *styles, t=0.5)
    seen = pixels(browser.post("/api/render", json=wish).content)
    files = {
        kind: browser.post("/api/export", json=wish | {"kind": kind}) for kind in ("png", "png-bare", "recipe", "strip")
    }
    assert {answer.status_code for answer in files.values()} == {200}
    assert files["png"].headers["content-disposition"] == 'attachment; filename="hypernst.png"'
    for kind in ("png", "png-bare"):
        assert np.array_equal(pixels(files[kind].content), seen)
        (tmp_path / f"{kind}.png").write_bytes(files[kind].content)
        with Image.open(tmp_path / f"{kind}.png") as image:
            assert "trainedAlgorithmicMedia" in image.text[ours.XMP]  # type: ignore[attr-defined]
            assert ("hypernst" in image.text) == (kind == "png")  # type: ignore[attr-defined]
    made = recipes.read(tmp_path / "png.png")
    assert made == recipes.loads(files["recipe"].content) == recipes.loads(json.dumps(wish["recipe"]))
    strip = pixels(files["strip"].content)
    assert strip.shape == (32, 3 * 32, 3)
    assert np.abs(strip[:, -32:].astype(int) - seen).max() <= 1  # the walk's last code is of unit length once more
    walked = browser.settled(browser.post("/api/export", json=wish | {"kind": "walk"}))
    film = browser.get(f"/api/exports/{walked['job']}")
    (tmp_path / "walk.webm").write_bytes(film.content)
    assert film.headers["content-type"] == "video/webm"
    assert cv2.VideoCapture(str(tmp_path / "walk.webm")).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        assert browser.post("/api/export", json=wish | {"kind": "png"}).status_code == 200
        failed = browser.settled(browser.post("/api/export", json=wish | {"kind": "walk"}))
        told = "no temporary folder (No such file or directory)", "free some space, or set TMPDIR to a folder with some"
        assert (failed["state"], failed["error"], failed["way_out"]) == ("failed", *told)
    browser.opened(picture(7), "before.png")  # as another page of this studio may have called it
    other = browser.opened(picture(7), "../other.png")
    told = browser.post("/api/export", json=browser.wish(other, *styles) | {"kind": "recipe"})
    assert recipes.loads(told.content).portrait["name"] == other["name"] == other["portrait"]["name"] == "..-other.png"
    batch = browser.settled(
        browser.post("/api/export", json=wish | {"kind": "batch", "portraits": [me["id"], other["id"]]})
    )
    assert batch["state"] == "done" and (batch["done"], batch["of"]) == (2, 2)
    with zipfile.ZipFile(io.BytesIO(browser.get(f"/api/exports/{batch['job']}").content)) as box:
        first, second = box.namelist()
        assert first.startswith("01-me") and second.startswith("02-other")
        assert np.array_equal(pixels(box.read(first)), seen) and not np.array_equal(pixels(box.read(second)), seen)


def test_edits_and_the_larger_size_are_those_of_stylize(
    browser: Browser, me: Told, styles: list[Told], tmp_path: Path
) -> None:
    studio, about = browser.server.studio, browser.get("/api/about").json()
    assert about["edits"] == ["age", "smile"] and about["size"] == 32 and about["large"] == 64
    wish = browser.wish(me, styles[0])
    plain = pixels(browser.post("/api/render", json=wish).content)
    wish["recipe"]["edits"] = {"age": 2.0, "smile": -1.5}
    content = studio.read(picture(0), no_face="keep", name="me.png")
    expected = studio.stylize(content, picture(1), refine=0, edits={"age": 2, "smile": -1.5})
    rendered = pixels(browser.post("/api/render", json=wish).content)
    assert np.array_equal(rendered, np.asarray(expected)) and not np.array_equal(rendered, plain)
    saved = browser.post("/api/export", json=wish | {"kind": "png", "size": 64})
    large = studio.stylize(content, picture(1), refine=0, edits={"age": 2, "smile": -1.5}, size=64)
    assert np.array_equal(pixels(saved.content), np.asarray(large)) and large.size == (64, 64)
    wish["recipe"]["size"] = 64
    seen = browser.post("/api/render", json=wish | {"purpose": "large"})
    assert np.array_equal(pixels(seen.content), np.asarray(large))
    assert browser.post("/api/render", json=wish | {"recipe": wish["recipe"] | {"size": 48}}).status_code == 422
    del wish["recipe"]["size"]
    (tmp_path / "large.png").write_bytes(saved.content)
    made = recipes.read(tmp_path / "large.png")
    assert made.size == 64 and made.edits == {"age": 2.0, "smile": -1.5} and not studio.differs(made)
    assert made.weights == about["weights"] | {"directions": about["directions"]}
    for change in ({"size": 48}, {"recipe": wish["recipe"] | {"edits": {"nose": 1.0}}}):
        assert browser.post("/api/export", json=wish | {"kind": "png"} | change).status_code == 422


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe": {}}, "not a recipe: it lacks"),
        ({"recipe": None}, "not a recipe"),
        ({"portrait": 7}, "portrait is missing"),
        ({"ticket": -1}, "ticket is a whole number"),
        ({"ticket": True}, "ticket is a whole number"),
        ({"purpose": "fun"}, "purpose exact or keyframe or large"),
        ({"page": ["x"]}, "page is missing"),
        ({"kind": "gif"}, "kind is not known here"),
        ({"kind": "batch", "portraits": []}, "portraits are not 1 to 8 ids"),
    ],
)
def test_what_cannot_be_meant_is_told(browser: Browser, me: Told, styles: list[Told], change: Told, told: str) -> None:
    path = "/api/export" if "kind" in change else "/api/render"
    answer = browser.post(path, json=browser.wish(me, styles[0]) | change)
    assert answer.status_code == 422 and told in answer.json()["error"]


def test_a_style_that_is_not_here_is_asked_for(browser: Browser, me: Told, styles: list[Told]) -> None:
    wish = browser.wish(me, styles[0])
    wish["recipe"]["styles"]["a"] |= {"sha256": "0" * 64, "title": "gone"}
    for path in ("/api/render", "/api/refine", "/api/export"):
        answer = browser.post(path, json=wish | ({"kind": "png"} if "export" in path else {}))
        assert answer.status_code == 422 and answer.json()["missing"][0]["title"] == "gone"
    assert browser.post("/api/render", json=browser.wish(me, styles[0]) | {"portrait": "0" * 32}).status_code == 404


def test_several_faces_and_none(browser: Browser) -> None:
    two = np.concatenate([images.decode((FACES / f"face-{n}.jpg").read_bytes(), 300) for n in (1, 2)], 1)
    job = browser.settled(browser.post("/api/portraits?name=two.png", content=images.encode(two)))
    path = f"/api/portraits/{job['id']}"
    first = browser.get(path).json()
    assert first["state"] == "ready" and len(first["faces"]) == 2
    (left, *_), (right, *_) = first["faces"]
    assert 0 < left < 0.5 < right < 1
    assert Image.open(io.BytesIO(browser.get(f"{path}/source").content)).size == (600, 300)
    looks = set()
    for index in (1, 2):
        assert browser.settled(browser.post(f"{path}/face", json={"index": index}))["state"] == "done"
        assert browser.get(path).json()["portrait"]["face"] == index
        looks.add(browser.get(f"{path}/image").content)
    assert len(looks) == 2
    assert browser.post(f"{path}/face", json={"index": 3}).status_code == 422
    assert browser.post(f"{path}/face", json={"index": "1"}).status_code == 422
    browser.delete(path)

    none = browser.settled(browser.post("/api/portraits", content=picture(9)))
    path = f"/api/portraits/{none['id']}"
    told = browser.get(path).json()
    assert told["state"] == "no_face" and "no face found" in told["error"] and told["faces"] == []
    assert browser.post("/api/render", json=browser.wish(told)).status_code == 422
    assert browser.settled(browser.post(f"{path}/face", json={"centre": True}))["state"] == "done"
    told = browser.get(path).json()
    assert told["state"] == "ready" and "error" not in told
    assert set(np.unique(pixels(browser.get(f"{path}/regions.png").content))) == {255}
    browser.delete(path)


def test_what_happens_is_told_to_pages_that_were_away(browser: Browser) -> None:
    events = browser.server.events

    async def heard(last: str, count: int) -> list[str]:
        listening = events.listen(last)
        told = [(await anext(listening)).decode() for _ in range(count)]
        await listening.aclose()
        return told

    hello, *_ = browser.run(heard("", 1))
    assert hello == f'event: hello\ndata: {{"instance": "{browser.server.instance}"}}\n\n'
    before = events._number
    style = browser.style(picture(11), "new.png")
    told = browser.run(heard(f"{browser.server.instance}-{before}", 3))
    assert told[1].startswith(f"id: {browser.server.instance}-{before + 1}\nevent: job\n")
    assert style["id"] in told[1] + told[2]  # the end of the job before may be told after that was seen
    assert [*browser.run(heard("other-1", 1))] == [hello]


def test_samples_and_thumbnails(browser: Browser, styles: list[Told]) -> None:
    names = browser.get("/api/samples").json()
    assert len(names) == 3 and all(browser.get(f"/api/samples/{name}").content[:2] == b"\xff\xd8" for name in names)
    thumb = browser.get(f"/api/styles/{styles[0]['id']}/thumb")
    assert Image.open(io.BytesIO(thumb.content)).size == (160, 160) and "immutable" in thumb.headers["cache-control"]
    assert "klimt.png" in [style["title"] for style in browser.get("/api/styles?text=KLIM").json()]
