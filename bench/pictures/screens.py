"""README's pictures of the studio: `python -m bench.pictures.screens docs [STYLES]`.

The shelf holds no painting: its styles are faces of the generator that this program stylised. They are kept in the
folder STYLES, if it is named, and not made again when they are there. It takes Chromium, as `tests/browser/` does.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypernst
from bench.pictures.paintings import painting
from pipeline import images
from stages.preprocess import samples
from stages.studio.styles import Styles
from tests.browser.conftest import Desk, Served, desks, free_port

# What a style is called, the number of the painting that it is made by, and of the sample face that it shows.
STUDIES = {
    "after van Gogh": (436532, 0), "after Cézanne": (435882, 1), "after Holbein": (436658, 9),
    "after Jaunpur": (37788, 10), "after Sansetsu": (44858, 3), "after Hodler": (634108, 5),
    "after Rousseau": (438822, 6), "after Lautrec": (437835, 7), "after Devidasa": (37942, 2),
    "after Giotto": (436504, 10), "after Ugolino": (459131, 9), "after di Paolo": (458971, 7),
    "after El Greco": (459088, 6), "after Klimt": (436819, 1), "after Peeters": (827660, 5),
}  # fmt: skip
VIEW, SCALE = {"width": 1280, "height": 912}, 1.3
QUALITY = 80  # of the JPEGs


def make_styles(folder: Path) -> None:
    """Stylise faces of the generator by the paintings; those that are in the folder stay."""
    todo = {name: made for name, made in STUDIES.items() if not (folder / name).exists()}
    if not todo:
        return
    folder.mkdir(parents=True, exist_ok=True)
    studio = hypernst.load(cache=None)
    with tempfile.TemporaryDirectory() as drawn:
        samples.generate_faces(studio.ctx, Path(drawn))
        faces = {int(path.stem.split("-")[1]): path for path in Path(drawn).iterdir()}
        for name, (number, face) in todo.items():
            made = studio.stylize(faces[face], painting(number).path)
            made.save(folder / name, "PNG")
            print(name, file=sys.stderr)


class Shown(Served):
    """A studio on the shipped networks, whose folder `styles` is its whole shelf."""

    def __post_init__(self) -> None:
        self.studio = hypernst.load(cache=self.folder / "cache")

    def start(self) -> None:
        """Serve until `stop`."""
        with mock.patch.object(Styles, "_put_paintings", lambda styles: None):
            super().start()


def choose(desk: Desk, title: str, **options: Any) -> None:
    """Click a style, and wait for its picture, so that the history has it."""
    desk.find(f'.tile[aria-label="{title}"]').click(**options)
    desk.settle()


def regions(desk: Desk) -> None:
    """Hair, face and background with a style each, the face's at 80 %."""
    choose(desk, "after Sansetsu")
    for key, title in zip("132", ("after van Gogh", "after Cézanne", "after Jaunpur"), strict=True):
        desk.page.keyboard.press(key)
        choose(desk, title)
    desk.strength("face").fill("0.8")
    desk.settle()


def mix(desk: Desk) -> None:
    """Three styles mixed on the pad."""
    choose(desk, "after Jaunpur")
    choose(desk, "after di Paolo", modifiers=["Shift"])
    choose(desk, "after Devidasa", modifiers=["Shift"])
    pad = desk.find(".pad").bounding_box()
    desk.page.mouse.click(pad["x"] + 0.42 * pad["width"], pad["y"] + 0.26 * pad["height"])
    desk.settle()


def save(desk: Desk, face: int, look: Callable[[Desk], None], output: Path) -> None:
    """Open a sample face, give it a look, have it refined and drawn large, and save the page."""
    desk.find(".sample").nth(face).click()
    desk.find("#frame").wait_for()
    desk.settle()
    look(desk)
    desk.find("#refine-at-rest").click()
    desk.page.mouse.move(VIEW["width"] / 2, VIEW["height"] - 8)
    desk.settle("refined")
    desk.until(lambda: desk.find("#badge").text_content().endswith(" px"))
    desk.page.wait_for_timeout(1000)
    rgb = images.decode(desk.page.screenshot())
    output.write_bytes(images.encode(rgb, ".jpg", QUALITY))


def main(docs: str, kept: str = "") -> None:
    """Save both pictures in a folder."""
    looks = (("regions", "light", 0, regions), ("mix", "dark", 2, mix))
    with tempfile.TemporaryDirectory() as made:
        styles = Path(kept or Path(made) / "studies").absolute()
        make_styles(styles)
        (Path(made) / "styles").symlink_to(styles)
        views = [
            {"viewport": VIEW, "device_scale_factor": SCALE, "color_scheme": colours} for _, colours, _, _ in looks
        ]
        pages = desks(Shown(Path(made), free_port()), views)
        for (name, _, face, look), desk in zip(looks, pages, strict=True):
            save(desk, face, look, Path(docs) / f"studio-{name}.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
