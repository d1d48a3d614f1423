"""The page in a real browser: from a face to a file and back, by mouse and by keys."""

import json
from pathlib import Path

from tests.browser.conftest import FACES, Desk


def test_a_dropped_portrait_takes_a_style_and_stays_in_reach(desk: Desk) -> None:
    desk.drop(((FACES / "face-1.jpg").read_bytes(), "me.jpg"), at="#start")
    desk.find("#frame").wait_for()
    desk.settle()
    desk.style(1)
    desk.settle()
    exact = desk.picture()
    desk.page.keyboard.down("Space")
    before = desk.picture()
    desk.page.keyboard.up("Space")
    assert before != exact and desk.picture() == exact
    desk.page.keyboard.press("c")
    desk.find("#compare-handle").fill("30")
    assert desk.picture() not in (before, exact)
    desk.page.keyboard.press("c")
    assert desk.picture() == exact


def test_a_region_is_clicked_in_the_picture_and_takes_a_style_of_its_own(desk: Desk) -> None:
    desk.open_sample()
    box = desk.find("#picture").bounding_box()
    desk.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    target = desk.find('.card input[type="radio"]:checked').get_attribute("value")
    assert target in ("hair", "face", "background")
    whole = desk.picture()
    desk.style(1)
    desk.settle()
    titles = desk.find(".card .mix").all_text_contents()
    assert [("squares 1.png" in text) for text in titles] == [t == target for t in ("hair", "face", "background")]
    desk.page.keyboard.press("z")
    desk.settle()
    assert desk.picture() == whole


def test_styles_are_mixed_by_slider_and_pad_and_looks_come_back(desk: Desk) -> None:
    desk.open_sample()
    desk.style(1)
    desk.settle()
    first = desk.picture()
    desk.style(2, modifiers=["Shift"])
    desk.settle()
    mixed = desk.picture()
    assert mixed != first and desk.find(".between input").get_attribute("aria-valuetext") == "A 50 % · B 50 %"
    desk.find("#undo").click()
    assert desk.picture() == first
    desk.page.keyboard.press("Shift+Z")
    assert desk.picture() == mixed
    desk.find(".past").nth(-2).click()
    assert desk.picture() == first and desk.find(".past").nth(-2).get_attribute("aria-current") == "true"
    desk.page.keyboard.press("z")
    desk.style(3, modifiers=["Shift"])
    pad = desk.find(".pad").bounding_box()
    desk.page.mouse.click(pad["x"] + 2, pad["y"] + 2)
    weights = [desk.find(f'[data-key="weight-whole-{letter}"]') for letter in "ABC"]
    assert float(weights[0].input_value()) > 0.95
    weights[1].fill("0.6")
    assert [round(float(field.input_value()), 1) for field in weights] == [0.4, 0.6, 0.0]
    desk.find(".pad").focus()
    desk.page.keyboard.press("Shift+ArrowDown")
    assert float(weights[2].input_value()) > 0.05
    desk.settle()


def test_the_map_mixes_what_lies_in_a_circle_or_is_ticked_in_its_list(desk: Desk) -> None:
    desk.open_sample()
    mix = desk.find(".card .mix li")
    desk.page.keyboard.press("m")
    desk.find("#map").get_by_text("List").click()
    ticks = desk.find("#map .list input")
    desk.until(lambda: ticks.count() >= 4)  # those whose codes are known
    ticks.nth(0).check()
    ticks.nth(1).check()
    assert mix.count() == 2
    desk.find("#map").get_by_text("List").click()
    box, mouse = desk.find("#map canvas").bounding_box(), desk.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
    mouse.up()
    assert mix.count() > 2
    desk.settle()


def test_a_look_travels_as_text_as_a_link_and_in_its_picture(desk: Desk) -> None:
    desk.open_sample()
    desk.style(1)
    desk.strength().fill("0.5")
    desk.settle()
    made = desk.picture()
    recipe, link = copied(desk, "Copy the recipe", "{"), copied(desk, "Copy a link", "http")
    assert json.loads(recipe)["regions"]["hair"] == {"mix": {"a": 1}, "t": 0.707107}
    with desk.page.expect_download() as download:
        desk.page.keyboard.press("s")
    saved = Path(download.value.path()).read_bytes()
    for bring in (
        lambda: desk.drop((recipe.encode(), "recipe.json")),
        lambda: desk.page.evaluate("link => { location.hash = new URL(link).hash }", link),
        lambda: desk.drop((saved, "result.png")),
    ):
        desk.style(2)
        desk.strength().fill("1")
        desk.settle()
        assert desk.picture() != made
        bring()
        desk.until(lambda: desk.strength().input_value() == "0.5")
        desk.settle()
        assert desk.picture() == made and "#" not in desk.page.url
    desk.drop((b'{"hypernst": 1}', "recipe.json"))
    desk.page.get_by_text("This is no recipe of HyperNST.").wait_for()
    desk.drop((b"GIF89a, nearly", "cat.jpg"))
    desk.until(lambda: "no recipe" not in desk.find("#toast").text_content())
    assert desk.find("#toast.fault").text_content()
    assert desk.picture() == made


def copied(desk: Desk, item: str, start: str) -> str:
    """What an item of the recipe's menu copies."""
    desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk.find("#recipe").click()
    desk.page.get_by_text(item).click()
    read = "navigator.clipboard.readText()"
    desk.until(lambda: desk.page.evaluate(read).startswith(start))
    return desk.page.evaluate(read)
