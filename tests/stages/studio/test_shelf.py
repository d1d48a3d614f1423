"""Styles on the shelf: by name, by likeness, on a map; quick pictures from the codes that ship."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

from pipeline.caches.reader import Cache
from stages.studio import styles
from stages.studio.app import Server
from stages.studio.guard import Pass
from stages.styles import library
from tests.stages.studio.tiny_studio import Browser, Told, picture, start
from tests.support.caches import fill_in_place_of_networks

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("styles")
    for i, name in ((1, "one"), (2, "two"), (3, "two more")):
        (folder / f"{name}.png").write_bytes(picture(i))
    made = start(tmp_path_factory.mktemp("studio"), folders=(folder,))
    made.server.styles.filling.future.result(60)
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def own(browser: Browser) -> list[Told]:
    return [browser.style(picture(i), name) for i, name in ((1, "again"), (4, "four"), (5, "five"))]


def test_likest_first_as_by_comparing_all(browser: Browser, own: list[Told]) -> None:
    assert own[0]["title"] == "one.png" and not own[0]["own"] and own[1]["own"]  # it was there already
    assert browser.style(picture(5), "5.png")["title"] == "5.png"  # a person's own is called as they called it last
    shelf = browser.server.styles.all
    while any(not style.own and style.codes is None and style.title.endswith(".png") for style in shelf.values()):
        browser.style(picture(4), "four")  # the folder is read when nothing else is asked for
    codes = {style.id: style.codes[3] for style in shelf.values() if style.codes is not None}
    cosines = {id: float(code @ codes[own[1]["id"]]) for id, code in codes.items()}
    found = browser.get(f"/api/styles?near={own[1]['id']}&k=4").json()
    assert [style["id"] for style in found] == sorted(cosines, key=lambda id: -cosines[id])[:4]
    assert found[0]["likeness"] == 1 and found[3]["likeness"] == pytest.approx(cosines[found[3]["id"]], abs=1e-4)
    assert {style["title"] for style in browser.get("/api/styles?text=tWo").json()} >= {"two.png", "two more.png"}
    me = browser.opened(picture(1))
    assert browser.get(f"/api/styles?near={me['id']}&k=1").json()[0]["title"] == "one.png"
    mapped = browser.get("/api/map?region=whole")
    places = np.array(mapped.json()["places"]).reshape(-1, 2)
    assert set(mapped.json()["ids"]) == set(codes) and places.min() == 0 and places.max() == 1
    again = browser.get("/api/map?region=whole", headers={"if-none-match": mapped.headers["etag"]})
    assert again.status_code == 304
    for path in (f"near={me['id']}&region=hair", "near=0", f"near={me['id']}&region=chin"):
        assert browser.get(f"/api/styles?{path}").status_code in (404, 422)


def test_paintings_have_codes_only_of_these_networks(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paintings = library.shipped()
    shelf = browser.server.styles
    assert shelf.all[paintings.paintings[0].sha256[:32]].codes is None
    mine = dataclasses.replace(paintings, recipe=library.recipe(browser.server.studio.ctx))
    monkeypatch.setattr(library, "shipped", lambda: mine)
    shelf._put_paintings()
    style = shelf.all[mine.paintings[5].sha256[:32]]
    assert style.codes is not None and shelf.quick(style).origin.sha256 == style.sha256  # type: ignore[union-attr]
    me = browser.opened(picture(0))
    wish = browser.wish(me, style.told()) | {"purpose": "keyframe"}
    assert browser.post("/api/render", json=wish).status_code == 200
    assert np.array_equal(style.codes, mine.codes[5])  # it was not read


def test_styles_of_the_own_cache_come_after_the_start_with_their_codes(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, go = browser.server.studio, threading.Event()
    ctx = dataclasses.replace(studio.ctx, cache=tmp_path / "cache", style=tmp_path / "style")
    fill_in_place_of_networks(ctx, "style", 2)

    class Slow(Cache):
        def __init__(self, path: Path) -> None:
            go.wait(60)
            super().__init__(path)

    monkeypatch.setattr(styles, "Cache", Slow)
    late = Browser(Server(studio, Pass(7717, token="t" * 32), cached=ctx.file("style", "images").parent))
    assert late.get("/").status_code == 200 and late.get("/api/styles?text=style0000").json() == []
    filling = {"id": "", "job": late.get("/api/about").json()["shelf"]}
    go.set()
    assert filling["job"] and late.settled(httpx2.Response(202, json=filling))["state"] == "done"
    assert late.get("/api/about").json()["shelf"] == ""
    [style] = late.get("/api/styles?text=style0000").json()  # the same picture twice
    assert style["valid"] is not None and not style["own"] and not style["read"]
    me = late.opened(picture(0))
    assert late.post("/api/render", json=late.wish(me, style)).status_code == 200
    assert late.get(f"/api/styles/{style['id']}/thumb").status_code == 200
    late.server.close()
