"""Each reason for which the system does not write or read has its own words, and a line that was cut stops nothing."""

import errno
import os
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UserError

WRITING = {
    errno.ENOSPC: r"no space left on the device \(\d+ MB free\); free some space",
    errno.EDQUOT: "quota",
    errno.EFBIG: "ulimit -f",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EROFS: "read-only; choose another folder",
    errno.EIO: "input/output error.*look at the disk",
    errno.ESTALE: "stale file handle.*mount it anew",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "this machine may not open any more files",
    errno.ENOMEM: "not enough memory",
    errno.ENAMETOOLONG: "too long.*choose shorter names",
    errno.ENOTDIR: "no folder; choose another",
    errno.EISDIR: "a folder is where the file should be",
    errno.ELOOP: "links lead in a circle",
    errno.ETIMEDOUT: "did not answer in time",
    errno.EBADMSG: "Bad message; look at",
}


@pytest.mark.parametrize("number", WRITING, ids=errno.errorcode.get)
def test_each_cause_has_its_words(tmp_path: Path, number: int) -> None:
    error = files.disk_error(OSError(number, os.strerror(number)), tmp_path / "x")
    assert "\n" not in str(error) and error.status == 1
    with pytest.raises(UserError, match=rf"x: cannot be written: .*{WRITING[number]}"):
        raise error
    others = {str(files.disk_error(OSError(n, os.strerror(n)), tmp_path / "x")) for n in WRITING}
    assert len(others) == len(WRITING) - 1  # EACCES and EPERM share their words


def test_a_real_cause_is_told_by_what_writes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, words in {
        tmp_path / "file" / "x": "a file is where its folder should be, or a link to nothing",
        tmp_path / "folder": "a folder is where the file should be",
        tmp_path / ("n" * 300): "too long",
    }.items():
        with pytest.raises(UserError, match=f"cannot be written: .*{words}"):
            files.write_atomic(path, b"")
        with pytest.raises(UserError, match=f"cannot be written: .*{words}"):
            files.LineLog(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    for name in ("victim", "nothing"):
        (tmp_path / f"{name}.jsonl").symlink_to(tmp_path / name)
        with pytest.raises(UserError, match="is a link, which is not written through"):
            files.LineLog(tmp_path / f"{name}.jsonl")
    assert (tmp_path / "victim").read_bytes() == b"mine" and not (tmp_path / "nothing").exists()


def test_no_file_replaces_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe; choose another name"):
        files.write_atomic(tmp_path / "pipe", b"x")
    with pytest.raises(UserError, match="a pipe is there; choose another name"):
        files.check_place(tmp_path / "pipe")
    assert [(path.name, path.is_fifo()) for path in tmp_path.iterdir()] == [("pipe", True)]


@pytest.mark.parametrize("data", [None, b"", b'{"a": 1', b"[1]", b"7", b"[" * 100_000, b"\0" * 9, b"\xff{}"])
def test_a_damaged_note_is_none(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "note.json").write_bytes(data)
    assert files.read_json(tmp_path / "note.json") == {}


def test_an_error_about_another_file_is_not_told_as_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"), files.replacing(tmp_path / "x"):
        (tmp_path / "source").read_bytes()


@pytest.mark.parametrize("damage", [b'{"a": 1, "b', b"\0\0\0\0", b"\xff\xfe", b"[" * 100_000, b"7", b"null"])
def test_a_line_that_was_cut_or_damaged_is_left_out_and_ended(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "run" / "log.jsonl"
    with files.LineLog(path) as log:
        log.add({"a": 1})
    path.write_bytes(path.read_bytes() + damage)
    with files.LineLog(path) as log:
        log.add({"a": 2, "text": "é\n"})
    assert files.read_lines(path) == [{"a": 1}, {"a": 2, "text": "é\n"}]
    assert files.read_lines(tmp_path / "missing.jsonl") == []


def test_room_for_a_mapped_array_is_taken_at_once(tmp_path: Path) -> None:
    array = files.new_array(tmp_path / "a.npy", "f4", (1000, 30), fill=-1)
    assert (array == -1).all() and array.shape == (1000, 30)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[3] = 5
    array.flush()
    again = files.new_array(tmp_path / "b.npy", "u1", (5,))
    assert not again.any() and (tmp_path / "b.npy").exists()
