"""Prefetching: the data of the next step loads while this one runs, once, and an error is raised in its own step."""

import multiprocessing
import os
import threading
import time

import pytest

from pipeline.training.prefetch import Prefetcher


def test_the_next_step_is_made_while_this_one_runs() -> None:
    made, started = [], threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 6:
            started.set()
        return 10 * step

    with Prefetcher(make) as prefetched:
        assert prefetched[5] == 50
        assert started.wait(10)  # nobody has asked for step 6 yet
        assert [prefetched[6], prefetched[7]] == [60, 70]
        assert prefetched[2] == 20  # after a jump only the prefetched data is lost
    assert made[:3] == [5, 6, 7] and made.count(2) == 1


def test_an_error_comes_with_its_own_step() -> None:
    def make(step: int) -> int:
        return 1 // (2 - step)

    with Prefetcher(make) as prefetched:
        assert prefetched[1] == 1
        with pytest.raises(ZeroDivisionError):
            _ = prefetched[2]


def in_process(step: int) -> tuple[int, int]:
    return step, os.getpid()


def test_processes_make_the_steps_ahead_and_end() -> None:
    with Prefetcher(in_process, 2) as prefetched:
        made = [prefetched[step] for step in (5, 6, 7, 2, 8)]
    assert [step for step, _ in made] == [5, 6, 7, 2, 8]
    assert len({process for _, process in made[:3]} - {os.getpid()}) == 2
    for _ in range(100):
        if not multiprocessing.active_children():
            break
        time.sleep(0.1)
    assert not multiprocessing.active_children()
