"""Keys are stable, unique and fit the pattern for any file name; folders are walked completely, loops included."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Fault
from pipeline.sources import KEY, KEY_LENGTH, key_of, scan

CHARACTERS = st.characters(exclude_characters="\0", codec="utf-8")
NAMES = st.text(CHARACTERS, min_size=1, max_size=150).map(lambda s: s + ".jpg")


@given(st.lists(NAMES | st.from_regex(r"[a-zA-Z_/.-]{1,6}(\.jpg|\.png)", fullmatch=True), unique=True, max_size=30))
def test_keys_fit_and_differ(paths: list[str]) -> None:
    keys = [key_of(p) for p in paths]
    assert len(set(keys)) == len(paths)
    assert all(KEY.fullmatch(k) and len(k) <= KEY_LENGTH for k in keys)


def test_keys_are_readable_and_stable() -> None:
    assert key_of("faces/anna-1.jpg") == "faces__anna-1"
    assert key_of("Anna 1.jpg") == "anna-1-55699debca74"
    assert key_of("anna-1.png").startswith("anna-1-")
    assert key_of("\udcff.jpg") == key_of("\udcff.jpg")


def test_scan_takes_pictures_only_and_survives_loops(tmp_path: Path) -> None:
    for name in ("b.jpg", "a b.PNG", "notes.txt", ".hidden.jpg", "deep/er/c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    assert sorted(s.path for s in scan(tmp_path)) == ["a b.PNG", "b.jpg", "deep/er/c.webp"]


def test_an_empty_folder_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="holds no picture") as fault:
        scan(tmp_path)
    assert fault.value.status == 2
