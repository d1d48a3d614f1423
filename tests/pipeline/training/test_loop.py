"""A training is stopped by a signal: once to save and end, twice to end at once."""

import contextlib
import signal
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.training.loop import Loop, rows


@pytest.mark.parametrize(("times", "saved"), [(1, [1]), (2, [])])
def test_ctrl_c_once_saves_and_twice_ends_at_once(
    tmp_path: Path, times: int, saved: list[int], capfd: pytest.CaptureFixture
) -> None:
    steps: list[int] = []
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    ends: type[BaseException] = UserError if times == 1 else KeyboardInterrupt
    try:
        with pytest.raises(ends), Loop("train", tmp_path, 5, save=steps.append) as loop:
            for _ in loop:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
        assert steps == saved and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, former)
    assert "train: stops and saves after this step; Ctrl-C again stops at once\n" in capfd.readouterr().err
    with lock(tmp_path, "train"):
        pass


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_saves_first_and_ends_nothing_under_nohup(tmp_path: Path, ignored: bool) -> None:
    steps: list[int] = []
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with (
            contextlib.nullcontext() if ignored else pytest.raises(UserError) as fault,
            Loop("train", tmp_path, 3, save=steps.append) as loop,
        ):
            for step in loop:
                if step == 1:
                    signal.raise_signal(signal.SIGHUP)
        with Loop("train", tmp_path, 3, save=steps.append, step=2) as loop:
            for _ in loop:
                signal.raise_signal(signal.SIGTERM)  # in the last step: nothing is left to resume
    finally:
        signal.signal(signal.SIGHUP, former)
    assert steps == [3 if ignored else 2, 3] and (ignored or fault.value.status == 128 + signal.SIGHUP)


def test_lines_without_a_step_are_left_out(tmp_path: Path) -> None:
    told = '{"step": 1, "l2": NaN}\n{"step": "2"}\n{"step": null}\n{"step": [3]}\n{"l2": 4}\n{"step": 5}\n'
    (tmp_path / "log.jsonl").write_text(told)
    assert [row["step"] for row in rows(tmp_path)] == [1, 5]


def test_a_board_that_cannot_be_written_leaves_the_folder_free(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard: cannot be written"), Loop("train", tmp_path, 5, save=print):
        pass
    with lock(tmp_path, "train"):
        pass
