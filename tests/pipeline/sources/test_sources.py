"""Keys are stable, unique and fit the pattern for any file name; folders are walked completely, loops included."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.caches.digests import Index
from pipeline.errors import UserError
from pipeline.runner.inputs import Inputs
from pipeline.sources import archives
from pipeline.sources.fingerprints import Fingerprints
from pipeline.sources.keys import KEY, KEY_LENGTH, key_of
from pipeline.sources.reader import Reader, Source, contents
from pipeline.sources.scan import LeftOut, scan

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


def test_scan_takes_images_only_and_survives_loops(tmp_path: Path) -> None:
    for name in ("b.jpg", "a b.PNG", "notes.txt", ".hidden.jpg", "deep/er/c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    assert sorted(s.path for s in scan(tmp_path)) == ["a b.PNG", "b.jpg", "deep/er/c.webp"]
    (tmp_path / "deep" / "er" / "up").symlink_to(tmp_path / "deep" / "..")
    (tmp_path / "deep" / "root").symlink_to("/")  # all that there is would be read
    scan(tmp_path / "deep", left=(left := LeftOut()))
    assert str(left) == "not read: a folder around it (er/up), a folder around it (loop), a folder around it (root)"


def test_an_archive_has_the_keys_of_its_folder_unpacked_and_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    listing = archives.listing
    monkeypatch.setattr(archives, "listing", lambda file: calls.append(file) or listing(file))
    names = ["b.jpg", "deep/er/A b.png", "deep/notes.txt", ".hidden/c.jpg"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    plain = {s.key: s.path for s in scan(tmp_path / "in")}
    for kind in ("tar", "gztar", "zip"):
        archive = Path(shutil.make_archive(str(tmp_path / kind), kind, tmp_path / "in"))
        notes = Fingerprints(tmp_path / "notes.json")
        sources = scan(archive, notes)
        assert {s.key: s.path for s in sources} == plain
        reader = Reader()
        assert [reader.read(s).decode() for s in sources] == [s.path for s in sources]
        notes.save()
        calls.clear()
        assert scan(archive, Fingerprints(tmp_path / "notes.json")) == sources and calls == []
        state = archive.stat()
        archive.write_bytes(bytes(state.st_size))
        os.utime(archive, ns=(state.st_atime_ns, state.st_mtime_ns))  # its size and time are as before
        with pytest.raises(UserError, match="archive"):
            scan(archive, Fingerprints(tmp_path / "notes.json"))


def test_digests_of_added_files_go_to_a_log_until_it_is_long(tmp_path: Path) -> None:
    notes, log, place = tmp_path / "notes.json", tmp_path / "notes.jsonl", tmp_path / "in"
    place.mkdir()

    def add(*numbers: int) -> bytes:
        for number in numbers:
            (place / f"n{number}.jpg").write_bytes(bytes(number))
        fingerprints = Fingerprints(notes, place)
        for source in scan(place):
            fingerprints.read(source, Reader())
        fingerprints.save()
        saved = Fingerprints(notes, place)
        assert None not in map(saved.get, scan(place)), "all are remembered"
        return notes.read_bytes()

    whole = add(*range(16))
    assert not log.exists()
    assert add(100) == whole and log.exists()
    moved = Fingerprints(notes, tmp_path / "elsewhere")
    assert moved.sizes(["n3", "n100", "n200"]) == {3, 100, None} and not any(map(moved.get, scan(place)))
    assert add(101) == whole != add(102) and not log.exists()


@pytest.mark.parametrize(
    "odd", [None, 5, [], {}, ["x"], [1, 2, 3, 4, "zz"], [1, 2, 3, 4, 5], [1, 2, 3, 4, "ab"], [1, 2, 3, 4, [[5] * 5]]]
)
def test_damaged_digests_and_lists_of_members_are_none(tmp_path: Path, odd: object) -> None:
    """Notes of the right shape but for what is in them."""
    notes, place = tmp_path / "notes.json", tmp_path / "in"
    place.mkdir()
    (place / "a.jpg").write_bytes(b"a")
    with zipfile.ZipFile(place / "b.zip", "w") as archive:
        archive.writestr("c.jpg", b"c")
    known = Fingerprints(notes, place)
    sound = [known.read(source, Reader()) for source in scan(place, known)]
    known.save()
    saved = json.loads(notes.read_text())
    for part in ("files", "archives"):
        kept = saved[part]
        ends = [odd, *([[*kept[name][:-1], odd[-1]] for name in kept] if isinstance(odd, list) and odd else [])]
        for end in ends:
            notes.write_text(json.dumps(saved | {part: dict.fromkeys(kept, end)}))
            again = Fingerprints(notes, place)
            again.sizes(kept)
            assert [again.read(source, Reader()) for source in scan(place, again)] == sound


def test_of_equal_files_the_first_is_kept_whatever_is_read_first(tmp_path: Path) -> None:
    def made(key: str, content: bytes) -> str:
        return inputs.duplicate(key, content)

    sources = {key: Source(key, f"{key}.jpg", "", -1, 0, (), "") for key in "abc"}
    inputs = Inputs(Index.of({}), sources, {}, Fingerprints(None))
    assert [made("b", b"x"), made("a", b"x"), made("b", b"x"), made("c", b"x"), made("c", b"y")] == [
        "",
        "",
        "the same file as 'a.jpg'",
        "the same file as 'a.jpg'",
        "",
    ]


def test_an_empty_folder_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image") as fault:
        scan(tmp_path)
    assert fault.value.status == 2


def test_an_image_file_is_read_to_its_limit_and_only_if_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(100))
    os.mkfifo(tmp_path / "pipe.jpg")
    assert contents(str(tmp_path / "a.jpg")) == bytes(100)
    for file in (tmp_path, tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a plain file"):
            contents(str(file))
    monkeypatch.setattr(archives, "MAX_BYTES", 99)
    (source,) = scan(tmp_path / "a.jpg")
    assert source.problem == "more than 0 MB for an image's file; save it smaller, or as a JPEG"
    with pytest.raises(OSError, match="save it smaller"):
        contents(str(tmp_path / "a.jpg"))  # it has grown since it was looked at


def test_what_a_killed_run_noted_is_known(tmp_path: Path) -> None:
    place, path = tmp_path / "in", tmp_path / "notes.json"
    place.mkdir()
    for name in "abc":
        (place / f"{name}.jpg").write_text(name)
    sources = scan(place)
    notes = Fingerprints(path, place)
    for source in sources:
        notes.put(source, source.key.encode())
        notes.note()
    log = tmp_path / "notes.jsonl"
    log.write_bytes(log.read_bytes()[:-5])  # the last line is cut
    again = Fingerprints(path, place)
    assert [again.get(source) is not None for source in sources] == [True, True, False]
    again.save()
    assert not log.exists() and Fingerprints(path, place).get(sources[1]) == again.get(sources[1])
    notes.put(sources[2], b"c")
    notes.note()
    assert Fingerprints(path, tmp_path).get(sources[2]) is None, "another folder's"
