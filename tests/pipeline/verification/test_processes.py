"""Checks over several processes: their results, and that none outlives the one that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError, interrupts_for_us
from pipeline.verification import processes

ROOT = Path(processes.__file__).parents[2]


def check(path: Path) -> str:
    if path.name == "bad":
        raise UserError(f"{path}: bad", 3)
    if path.name == "gone":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "slow":
        print("waits", flush=True)
        time.sleep(60)
    return path.name


def wait() -> None:
    """What is interrupted: two processes that would run for a minute."""
    processes.MANY_BYTES, processes._cores = 0, lambda: 2  # type: ignore[assignment]
    with contextlib.suppress(KeyboardInterrupt):
        list(processes.over_processes(check, [Path("slow")] * 2))


def test_results_come_in_order_and_failures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MANY_BYTES", 0)
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    found = processes.over_processes(check, [Path(name) for name in ("a", "b", "c", "bad", "d")])
    assert [next(found) for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(UserError, match="bad: bad") as fault:
        next(found)
    assert fault.value.status == 3
    with pytest.raises(UserError, match="gone: the process that read it was ended"):
        list(processes.over_processes(check, [Path("a"), Path("gone")]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_one_that_is_stopped(number: int) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.pipeline.verification.test_processes import wait; wait()"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=pipe, stderr=pipe, start_new_session=True)
    assert process.stdout and [process.stdout.readline() for _ in range(2)] == [b"waits\n"] * 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, told = process.communicate(timeout=30)  # until all that hold the pipes have ended
    assert told == b""


def test_an_interrupt_while_processes_start_is_heard_by_this_one_alone_and_later() -> None:
    former, told = signal.signal(signal.SIGINT, signal.default_int_handler), ""
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_for_us():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # other threads of this test do not block it
            told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    finally:
        signal.signal(signal.SIGINT, former)
    assert told == "True\n"
