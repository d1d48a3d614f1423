"""The page for everyone and everywhere: by keys alone, on a phone, in two tabs, over a new start of the server."""

from typing import Any

from tests.browser.conftest import Desk, Served


def serious(desk: Desk) -> list[str]:
    """What axe finds that keeps people out."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(desk.page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def test_every_screen_is_open_to_everyone(desk: Desk) -> None:
    assert serious(desk) == []
    desk.open_sample()
    desk.style(1, modifiers=["Shift"])
    desk.style(2, modifiers=["Shift"])
    desk.page.keyboard.press("2")
    desk.page.keyboard.press("o")
    desk.page.keyboard.press("c")
    for colours in ("light", "dark"):
        desk.page.emulate_media(color_scheme=colours)
        assert serious(desk) == []
    desk.page.keyboard.press("m")
    desk.find("#map canvas").wait_for()
    assert serious(desk) == []
    desk.page.keyboard.press("?")
    assert serious(desk) == []


def test_the_whole_way_by_keys_alone(desk: Desk) -> None:
    press, active = desk.page.keyboard.press, lambda: desk.page.evaluate("document.activeElement.className")
    desk.until(lambda: press("Tab") or active() == "sample")
    press("Enter")
    desk.settle()
    press("/")
    desk.page.keyboard.type("squares 1")
    desk.until(lambda: desk.find(".tile").count() == 1)
    desk.until(lambda: press("Tab") or desk.page.evaluate("document.activeElement.id") == "grid")
    press("Enter")
    assert desk.find('.tile[aria-label="squares 1.png"]').get_attribute("aria-selected") == "true"
    for _ in range(3):
        desk.page.evaluate("document.activeElement.blur()")
        press("Shift+ArrowLeft")
    press("ArrowLeft")
    assert desk.strength().input_value() == "0.69"
    desk.settle()
    whole = desk.picture()
    press("1")
    press("Shift+ArrowLeft")
    assert [desk.strength(name).input_value() for name in ("hair", "face", "background")] == ["0.59", "0.69", "0.69"]
    press("z")
    press("0")
    desk.settle()
    assert desk.picture() == whole
    with desk.page.expect_download() as download:
        press("r")
    assert download.value.suggested_filename == "recipe.json"


def test_on_a_phone_nothing_is_cut_off_and_everything_can_be_forgotten(browser: Any, served: Served) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    desk = Desk(context, served)
    desk.open_sample()
    for tab in ("settings", "history", "styles"):
        desk.find(f'[data-tab="{tab}"]').first.click()
        assert desk.find(f"#{tab}").is_visible() and desk.find("#picture").is_visible()
        assert desk.page.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [one.bounding_box() for one in desk.find("header button, header select, .bar button").all()]
    assert all(box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 390) for box in boxes)
    desk.find("#forget").click()
    desk.find("dialog .danger").click()
    desk.find(".zone").wait_for()
    assert desk.page.evaluate("fetch('/api/portraits').then(answer => answer.json())") == []
    assert desk.find(".past").count() == 0 and desk.find("#undo").is_disabled()
    context.close()
    assert desk.wrong == []


def test_two_tabs_do_not_disturb_each_other_and_go_on_after_a_new_start(desk: Desk, served: Served) -> None:
    desk.open_sample()
    other = Desk(desk.context, served)
    other.open_sample()
    served.delay = 0.2
    desk.style(1)
    other.style(2)
    desk.settle()
    other.settle()
    exact = desk.picture()
    assert exact != other.picture() and other.wrong == []
    other.page.close()
    served.delay = 0.5
    desk.style(2)
    served.stop()
    desk.page.get_by_text("The studio's server has stopped.").wait_for()
    served.delay = 0.0
    served.start()
    desk.page.get_by_text("The server is back.").wait_for()
    desk.settle()
    desk.page.keyboard.press("z")
    desk.settle()
    assert desk.picture() == exact
