"""The page for everyone and everywhere: by keys alone, on a phone, in two tabs, over a new start of the server."""

import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from pipeline import ours
from tests.browser.conftest import Desk, Served, two_faces


def test_every_screen_is_open_to_everyone(desk: Desk) -> None:
    assert desk.faults() == []
    desk.open_sample()
    desk.style(1, modifiers=["Shift"])
    desk.style(2, modifiers=["Shift"])
    desk.page.keyboard.press("2")
    desk.page.keyboard.press("o")
    desk.page.keyboard.press("c")
    for colours in ("light", "dark"):
        desk.page.emulate_media(color_scheme=colours)
        assert desk.faults() == []
    desk.page.keyboard.press("m")
    desk.find("#map canvas").wait_for()
    assert desk.faults() == []
    for opener in ("#help-open", "#about-open", "#forget"):
        desk.find(opener).click()
        assert desk.faults() == []
        desk.page.keyboard.press("Escape")


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
    desk = Desk(context, served.links[-1])
    desk.open_sample()
    for tab in ("settings", "history", "styles"):
        desk.find(f'[data-tab="{tab}"]').first.click()
        assert desk.find(f"#{tab}").is_visible() and desk.find("#picture").is_visible()
        assert desk.page.evaluate("document.documentElement.scrollWidth") == 390
        assert desk.faults() == []
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
    other = Desk(desk.context, served.links[-1])
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


def test_the_command_is_killed_and_the_page_goes_on(context: Any, served: Served) -> None:
    options = {"profile": served.folder / "tiny.toml", "run": served.folder / "run", "style": served.folder / "styles"}
    options |= {"cache": served.folder / "killed", "device": "cpu", "port": 0}

    def start() -> tuple[subprocess.Popen[str], str]:
        told = [str(text) for name, value in options.items() for text in (f"--{name}", value)]
        command = [sys.executable, "-m", "stages.cli.main", "studio", "--no-open", *told]
        begun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert begun.stdout is not None
        return begun, begun.stdout.readline().split()[-1]

    process, link = start()
    options["port"] = urlsplit(link).port or 0
    try:
        desk = Desk(context, link)
        desk.drop((two_faces(), "two.png"), at="#start")
        desk.find(".one-face").nth(1).click()
        desk.style(1)
        desk.until(lambda: desk.told_of("two.png")["portrait"].get("face") == 2)
        desk.settle()
        exact = desk.picture()
        desk.style(2)
        process.kill()
        process.communicate()
        desk.page.get_by_text("The studio's server has stopped.").wait_for()
        process, _ = start()
        desk.page.get_by_text("The server is back.").wait_for()
        desk.settle()
        assert desk.find('.tile[aria-label="squares 2.png"]').get_attribute("aria-selected") == "true"
        desk.page.keyboard.press("z")
        desk.settle()
        assert desk.picture() == exact
        assert desk.told_of("two.png")["portrait"]["face"] == 2 and desk.wrong == []
        process.terminate()  # with the page open, and listening
        _, told = process.communicate()
        assert process.returncode == 0 and "Traceback" not in told and "terminate" not in told
        assert ours.portraits(options["cache"] / ours.STUDIO) == []
    finally:
        process.kill()
        process.communicate()
