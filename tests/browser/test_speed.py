"""What makes the page feel instant: previews at the screen's pace, one exact picture on its way, the newest wins."""

import pytest

from tests.browser.conftest import FACES, Desk, Served

FRAMES = """new Promise(done => {
    const slider = document.querySelector('[data-key="strength-whole"]');
    const draw = CanvasRenderingContext2D.prototype.clearRect;
    let [frames, painted] = [0, 0];
    const begun = performance.now();
    CanvasRenderingContext2D.prototype.clearRect = function (...area) {
        if (this.canvas.id === "picture") painted += 1;
        return draw.apply(this, area);
    };
    const set = (value, kind) => {
        slider.value = String(value);
        slider.dispatchEvent(new Event(kind, { bubbles: true }));
    };
    const move = () => {
        set((frames * 7 % 90 + 5) / 100, "input");
        frames += 1;
        if (frames < 90) return requestAnimationFrame(move);
        set(0.37, "input");
        set(0.37, "change");
        CanvasRenderingContext2D.prototype.clearRect = draw;
        const seconds = (performance.now() - begun) / 1000;
        done([painted, frames, seconds, document.getElementById("badge").textContent]);
    };
    requestAnimationFrame(move);
})"""


def test_previews_keep_pace_with_the_screen_and_the_last_value_wins(desk: Desk, served: Served) -> None:
    desk.open_sample()
    exact = desk.picture()
    desk.rest()
    desk.find('.tile[aria-label="squares 1.png"]').hover()  # it is seen before it is chosen
    desk.until(lambda: desk.find("#badge").text_content() == "preview")
    assert desk.picture() != exact
    desk.style(1)
    desk.rest()
    served.delay = 0.5
    asked: list[dict] = []
    on_way = [0, 0]
    desk.page.on("request", lambda request: note(request, asked, on_way, 1))
    desk.page.on("requestfinished", lambda request: note(request, None, on_way, -1))
    painted, frames, seconds, badge = desk.page.evaluate(FRAMES)
    print(f"{painted} repaints in {seconds:.2f} s: {painted / seconds:.0f} a second")
    assert painted >= frames - 2 and badge == "preview"  # at every frame that the screen shows
    desk.settle()
    assert asked[-1]["recipe"]["regions"]["hair"]["t"] == pytest.approx(0.37**0.5, abs=1e-6)
    assert on_way[1] == 1
    served.delay = 0.0
    exact = desk.picture()
    desk.page.keyboard.press("z")
    desk.settle()
    desk.page.keyboard.press("Shift+Z")
    desk.settle()
    assert desk.picture() == exact


def note(request: object, asked: list[dict] | None, on_way: list[int], by: int) -> None:
    """Count exact pictures on their way, now and at most."""
    if not request.url.endswith("/api/render") or request.post_data_json["purpose"] != "exact":  # type: ignore[attr-defined]
        return
    on_way[0] += by
    on_way[1] = max(on_way)
    if asked is not None:
        asked.append(request.post_data_json)  # type: ignore[attr-defined]


def test_a_draft_says_so_until_it_is_read_to_its_end(desk: Desk, served: Served) -> None:
    served.draft = "draft.jpg"
    desk.drop(((FACES / "face-1.jpg").read_bytes() + b"\0", "draft.jpg"), at="#start")
    desk.settle("draft")
    draft = desk.picture()
    desk.page.reload()
    desk.find('.sample[aria-label="Go on with draft.jpg"]').click()
    desk.settle("draft")
    assert desk.told_of("draft.jpg")["state"] == "draft" and desk.picture() == draft
    past = "document.querySelector('.past canvas').toDataURL()"
    before = desk.page.evaluate(past)
    served.draft = ""
    desk.settle()
    assert desk.told_of("draft.jpg")["state"] == "ready" and desk.picture() != draft
    assert desk.find(".past").count() == 1 and desk.page.evaluate(past) != before


def test_a_picture_refines_itself_until_a_hand_moves_and_is_kept_or_undone(desk: Desk) -> None:
    desk.open_sample()
    exact = desk.picture()
    desk.find("#refine-at-rest").check()
    desk.until(lambda: desk.badge() in ("refining", "refined"))
    desk.page.keyboard.press("k")
    desk.settle("refined")
    desk.until(lambda: desk.find("#badge").text_content() == "refined, 64 px")
    assert desk.picture() != exact and desk.find("#keep").is_disabled()
    desk.page.keyboard.press("u")
    desk.settle()
    assert desk.picture() == exact
    desk.page.keyboard.press("z")
    desk.settle("refined")
    desk.style(2)
    assert desk.badge() in ("waiting", "preview", "exact")
