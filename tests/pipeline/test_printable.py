"""Names and texts of unknown origin never reach the terminal as control sequences."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.errors import UserError, is_out_of_memory, printable
from stages.cli import main as cli
from tests.pipeline.caches.test_hostile_caches import cache

EVIL = "a\x1b]0;owned\x07\x9b31m\u202e\U000e0041.jpg"
SHOWN = r"a\u001b]0;owned\u0007\u009b31m\u202e\U000e0041.jpg"


def call(*words: object) -> str:
    result = CliRunner().invoke(cli.cli, list(map(str, words)))
    text = result.output + result.stderr
    assert not any(c in text for c in EVIL if not c.isprintable()), text
    return text


def test_what_is_shown_is_letters_signs_and_spaces() -> None:
    assert printable(EVIL) == SHOWN and printable("two\nlines") == "two\nlines" and printable("a\tb") == r"a\u0009b"
    assert printable("Łódź 顔 é\u00a0x\u3000y 🙂") == "Łódź 顔 é\u00a0x\u3000y 🙂"
    assert printable("\udcff") == r"\udcff" and str(UserError(f"{EVIL}:\n wrong")) == f"{SHOWN}: wrong"


def test_names_of_all_kinds_are_written_out(tmp_path: Path) -> None:
    path = cache(tmp_path / "images.h5", stage=EVIL)
    assert SHOWN in call("inspect", path)
    assert r"no key" in call("inspect", path, "--key", EVIL)
    (tmp_path / "page.pt").write_text(f"<html><title>{EVIL}</title></html>")
    assert r"\u001b]0;owned" in call("weights", "import", tmp_path / "page.pt")
    with tarfile.open(tmp_path / "x.tar", "w") as box:
        box.addfile(tarfile.TarInfo(f"../{EVIL}"))
    shown = call("align", "--profile=tiny", f"--content={tmp_path / 'x.tar'}", f"--cache={tmp_path}", "--device=cpu")
    assert "leads out of it" in shown
    assert "no such folder" in call("align", f"--content={tmp_path / EVIL}", f"--cache={tmp_path}", "--device=cpu")


def test_rejects_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "content"
    folder.mkdir()
    for name in (EVIL, "b.jpg"):
        (folder / name).write_bytes(b"no picture")
    with tarfile.open(folder / "x.tar", "w") as box:
        info = tarfile.TarInfo(f"../{EVIL}")
        box.addfile(info)
    call(
        "align",
        "--profile=tiny",
        f"--content={folder}",
        f"--style={folder}",
        f"--cache={tmp_path / 'c'}",
        "--device=cpu",
    )
    lines = (tmp_path / "c" / "content" / "rejects.jsonl").read_text()
    assert "\x9b" not in lines and "\u202e" not in lines and len(lines.splitlines()) == 3
    reasons = [json.loads(line)["reason"] for line in lines.splitlines()]
    assert any("leads out of it" in reason for reason in reasons)


@pytest.mark.parametrize("text", ["", "plain", "x" * 10_000])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) is text


@pytest.mark.parametrize(
    "ask",
    [
        lambda: np.empty(1 << 60, np.uint8),
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: torch.empty(1 << 40, 1 << 40),
        lambda: cv2.resize(np.zeros((2, 2, 3), np.uint8), (1 << 23, 1 << 23)),
    ],
)
def test_each_librarys_words_for_no_memory_are_known(ask: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:
        ask()
    assert is_out_of_memory(caught.value), caught.value
    assert not is_out_of_memory(ValueError("no"))
    assert is_out_of_memory(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
