"""Pictures of every screen, for people to look at: `python -m tests.browser.screens FOLDER`.

Light and dark, 1400 and 390 px wide; the faces and paintings are real, the networks are not trained.
"""

import sys
import tempfile
from pathlib import Path

from tests.browser.conftest import FACES, Desk, Served, desks, free_port, two_faces
from tests.stages.studio.tiny_studio import picture


def take(desk: Desk, phone: bool, place: Path) -> None:
    """Go through the screens of one page, and save each as PLACE-NAME.png."""
    press = desk.page.keyboard.press

    def shot(name: str) -> None:
        desk.page.wait_for_timeout(400)
        desk.page.screenshot(path=f"{place}-{name}.png")

    def tab(name: str) -> None:
        if phone:
            desk.find(f'[data-tab="{name}"]').first.click()

    shot("start")
    desk.open_sample()
    tab("styles")
    for number in (3, 6, 9):
        desk.find(".tile").nth(number).click(modifiers=["Shift"])
    desk.settle()
    for name in ("styles", "settings", "history") if phone else ("mix",):
        tab(name)
        shot(name)
    tab("settings")
    for key in "2oc":
        press(key)
    desk.settle()
    shot("regions")
    for key in "oc":
        press(key)
    tab("styles")
    press("m")
    shot("map")
    press("m")
    for opener in ("about-open", "help-open", "download"):
        desk.find(f"#{opener}").click()
        shot(opener)
        press("Escape")
    desk.page.evaluate("document.getElementById('drop').hidden = false")
    shot("drop")
    desk.page.evaluate("document.getElementById('drop').hidden = true")
    desk.drop((two_faces(), "two friends.png"))
    desk.find(".one-face").nth(1).wait_for()
    shot("faces")
    press("Escape")
    desk.drop(
        *((path.read_bytes(), f"a portrait with a rather long name, {path.name}") for path in FACES.glob("*.jpg"))
    )
    desk.until(lambda: set(desk.find("#batch .rows .muted").all_text_contents()) == {"done"})
    shot("batch")


def main(folder: Path) -> None:
    """Save all pictures in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [(size, colours) for size in ((1400, 900), (390, 844)) for colours in ("light", "dark")]
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "styles").mkdir()
        (Path(made) / "styles" / "squares.png").write_bytes(picture(100))
        views = [{"viewport": {"width": w, "height": h}, "color_scheme": colours} for (w, h), colours in kinds]
        pages = desks(Served(Path(made), free_port()), views)
        for ((width, _), colours), desk in zip(kinds, pages, strict=True):
            take(desk, width < 900, folder / f"{width}-{colours}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
