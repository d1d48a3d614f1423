"""What is taken away and what is chosen on the way: files of every kind, batches, edits, one of several faces."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from stages.apply import walk
from stages.studio import exports
from tests.browser.conftest import FACES, Desk, Served, two_faces
from tests.stages.studio import tiny_studio


def saved(desk: Desk, button: str, words: str = "") -> tuple[str, bytes]:
    """The name and the bytes of the file that a button, or an item of its menu, saves."""
    with desk.page.expect_download() as download:
        desk.find(button).click()
        if words:
            desk.find("#download-menu button", has_text=words).first.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_every_kind_of_file_and_a_batch(desk: Desk, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in ((exports, "STRIP", 3), (exports, "FRAMES", 4), (walk, "KEYS", 2)):
        monkeypatch.setattr(module, name, value)
    desk.open_sample()
    desk.style(1)
    desk.settle()
    for words, file, head, size in (
        ("PNG without recipe", "hypernst.png", b"\x89PNG", (32, 32)),
        ("PNG, 64 px", "hypernst.png", b"\x89PNG", (64, 64)),
        ("Strip", "hypernst-strip.png", b"\x89PNG", (96, 32)),
        ("Walk", "hypernst-walk.webm", b"\x1a\x45\xdf\xa3", None),
    ):
        name, data = saved(desk, "#download", words)
        assert name == file and data[:4] == head
        assert size is None or Image.open(io.BytesIO(data)).size == size
    rows = desk.find("#batch .rows .muted").all_text_contents
    served.draft = "face-2.jpg"
    desk.drop(*(((FACES / f"face-{n}.jpg").read_bytes(), f"face-{n}.jpg") for n in (1, 2)))
    desk.until(lambda: rows() == ["done", "draft"])
    served.draft = ""
    desk.until(lambda: rows() == ["done", "done"])
    assert desk.faults() == []
    name, data = saved(desk, "#batch .primary")
    with zipfile.ZipFile(io.BytesIO(data)) as box:
        assert name == "hypernst-batch.zip" and box.namelist() == ["01-face-1.png", "02-face-2.png"]
    desk.find("#batch").get_by_text("Back to the picture").click()
    assert desk.find("#picture").is_visible()


def test_edits_move_the_picture_and_travel_with_it(desk: Desk) -> None:
    desk.open_sample()
    plain = desk.picture()
    desk.find('[data-key="edit-age"]').fill("2")
    desk.find('[data-key="edit-smile"]').fill("-1.5")
    desk.settle()
    edited = desk.picture()
    assert edited != plain
    _, data = saved(desk, "#download", "PNG with its recipe")
    desk.find('[data-key="edit-age"]').dispatch_event("dblclick")
    desk.find('[data-key="edit-smile"]').fill("0")
    desk.settle()
    assert desk.picture() == plain
    desk.drop((data, "old.png"))
    desk.until(lambda: desk.find('[data-key="edit-age"]').input_value() == "2")
    desk.settle()
    assert desk.picture() == edited
    assert "other weights" not in (desk.find("#toast").text_content() or "")


def test_one_of_several_faces_is_chosen_and_portraits_are_closed(desk: Desk) -> None:
    desk.drop((two_faces(), "two.png"), at="#start")
    desk.find(".one-face").nth(1).wait_for()
    assert desk.faults() == []
    seen = []
    for number in (2, 1, 2):
        desk.find(f'.one-face[aria-label="Face {number} from the left"]').click()
        desk.until(lambda n=number: desk.told_of("two.png")["portrait"].get("face") == n)
        desk.settle()
        seen.append(desk.picture())
        desk.find("#faces").click()
        assert desk.find('.one-face[aria-pressed="true"]').all_text_contents() == [str(number)]
    assert seen[0] == seen[2] != seen[1]
    desk.page.keyboard.press("Escape")
    desk.page.reload()
    desk.find('.sample[aria-label="Go on with two.png"]').click()
    desk.find("#frame").wait_for()
    desk.find("#close").click()
    desk.find(".zone").wait_for()
    assert desk.told_of("two.png") == {} and desk.find('.sample[aria-label="Go on with two.png"]').count() == 0
    desk.drop((tiny_studio.picture(9), "no face.png"), at="#start")
    desk.page.get_by_role("button", name="Choose another picture").click()
    desk.until(lambda: desk.told_of("no face.png") == {})
