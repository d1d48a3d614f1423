"""Locks follow no link, empty no file of others, and say what keeps them from being taken, each cause in its words."""

import errno
import fcntl
import multiprocessing
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline import locks
from pipeline.errors import UserError
from pipeline.training.loop import Loop

Take = Callable[[Path], AbstractContextManager]


def run_lock(folder: Path) -> AbstractContextManager:
    return Loop("train", folder, 1, save=lambda _: None)


TAKES: dict[str, Take] = {
    "a cache": lambda folder: locks.lock(folder, "align"),
    "a run": run_lock,
    "a file": lambda folder: locks.locked(folder / ".lock"),
}
each = pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)


@each
@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_only_a_plain_file_is_taken(tmp_path: Path, take: Take, kind: str) -> None:
    folder, victim = tmp_path / "cache", tmp_path / "victim.txt"
    folder.mkdir()
    victim.write_text("mine")
    {
        "link": lambda: (folder / ".lock").symlink_to("../victim.txt"),
        "dangling": lambda: (folder / ".lock").symlink_to("../new.txt"),
        "folder": lambda: (folder / ".lock").mkdir(),
        "pipe": lambda: os.mkfifo(folder / ".lock"),
    }[kind]()
    what = "a link" if kind in ("link", "dangling") else "not a plain file"
    with pytest.raises(UserError, match=rf"\.lock: is {what}, expected a plain file .* remove it"), take(folder):
        pass
    assert victim.read_text() == "mine" and not (tmp_path / "new.txt").exists()


@pytest.mark.parametrize("name", ["a cache", "a run"])
@pytest.mark.parametrize("hard", [True, False])
def test_a_file_of_others_is_not_emptied(tmp_path: Path, name: str, hard: bool) -> None:
    (tmp_path / "victim.txt").write_text("mine")
    place = tmp_path / "c" / ".lock"
    place.parent.mkdir()
    place.hardlink_to(tmp_path / "victim.txt") if hard else place.write_text("mine")
    with pytest.raises(UserError, match="not a lock of this program"), TAKES[name](place.parent):
        pass
    assert place.read_text() == (tmp_path / "victim.txt").read_text() == "mine"


@each
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOLCK, "no file locks on this file system"),
        (errno.EOPNOTSUPP, "no file locks on this file system"),
        (errno.ENOSYS, "no file locks on this file system"),
        (errno.EIO, "could not be locked (Input/output error)"),
        (errno.EWOULDBLOCK, "in use by another run"),
    ],
)
def test_each_cause_has_its_words(
    tmp_path: Path, take: Take, number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(UserError) as caught, take(tmp_path):
        pass
    assert words in str(caught.value) and ("in use" in str(caught.value)) == (number == errno.EWOULDBLOCK)


def test_a_thread_may_take_its_lock_again_and_no_other_may(tmp_path: Path) -> None:
    told: list[str] = []

    def other() -> None:
        try:
            with locks.lock(tmp_path, "masks"):
                told.append("taken")
        except UserError as error:
            told.append(str(error))

    with locks.lock(tmp_path, "align"):
        with locks.lock(tmp_path, "again", nested=True):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert f"in use by stage align (pid {os.getpid()} on " in told[0]
    other()
    assert told[1:] == ["taken"] and (tmp_path / ".lock").read_bytes() == b""


def test_a_child_holds_no_lock_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    with locks.lock(tmp_path, "align"):
        child = context.Process(target=stop.wait, args=(60,))
        child.start()
    try:
        for _ in range(100):  # until the child has begun
            try:
                with locks.lock(tmp_path, "masks"):
                    break
            except UserError:
                threading.Event().wait(0.05)
        else:
            raise AssertionError("the child holds its parent's lock")
    finally:
        stop.set()
        child.join()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_take_it_is_what_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    former = os.umask(umask)
    try:
        with locks.lock(tmp_path, "align"), locks.locked(tmp_path / "x"):
            assert {(tmp_path / name).stat().st_mode & 0o777 for name in (".lock", "x")} == {mode}
    finally:
        os.umask(former)


def test_readers_share_and_keep_writers_out(tmp_path: Path) -> None:
    with locks.reading(tmp_path):  # no stage has worked here
        assert not [*tmp_path.iterdir()]
    with locks.lock(tmp_path, "align"), locks.reading(tmp_path):  # its own
        pass
    with locks.reading(tmp_path), locks.reading(tmp_path):
        with (
            pytest.raises(UserError, match="in use by another run"),
            locks.lock(tmp_path, "masks"),
        ):
            pass
        with pytest.raises(UserError, match="in use by another run"), locks.lock_if_writable(tmp_path, "masks"):
            pass
    told: list[str] = []

    def read() -> None:
        try:
            with locks.reading(tmp_path):
                told.append("read")
        except UserError as error:
            told.append(str(error))

    with locks.lock(tmp_path, "align"):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    read()
    assert f"in use by stage align (pid {os.getpid()} on " in told[0] and told[1:] == ["read"]


def test_a_lock_that_was_removed_meanwhile_is_taken_again(tmp_path: Path) -> None:
    """`clean` removes a lock that it holds; who waited for that one holds nothing with it."""
    there: list[bool] = []

    def wait() -> None:
        with locks.locked(tmp_path / "x"):
            there.append((tmp_path / "x").exists())

    with locks.locked(tmp_path / "x"):
        thread = threading.Thread(target=wait)
        thread.start()
        threading.Event().wait(0.2)  # until it waits; sooner is as good
        (tmp_path / "x").unlink()
    thread.join()
    assert there == [True]


def test_a_disk_without_room_for_the_holders_name_has_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with locks.lock(tmp_path, "align"):
        pass
