"""Streams that are closed, full or not read, and the interrupt: each ends a command with its status and one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.cli import main

ROOT = Path(main.__file__).parents[2]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_take_nothing_from_files(closed, tmp_path):
    """As of a service's: the next file would be opened under the number of what is written for people."""
    code = (
        "import os; from stages.cli import main; main.cli = lambda **_: print(os.open(os.devnull, 0) > 2); main.main()"
    )
    told = tmp_path / "told"
    line = f"'{sys.executable}' -c '{code}' {closed} {'' if '>&- ' in closed + ' ' else f'> {told}'}"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and (not told.exists() or told.read_text() == "True\n")


@pytest.mark.parametrize(("closed", "text"), [(True, ""), (False, "No space left on device")])
def test_a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one(closed, text):
    """As of `hypernst weights | head` and `hypernst weights > /dev/full`."""
    reading, writing = os.pipe() if closed else (os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY))
    os.close(reading)
    command = [sys.executable, "-m", "stages.cli.main", "weights"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1 and text in done.stderr and len(done.stderr.splitlines()) == bool(text), done.stderr


@pytest.mark.parametrize("where", ["__init__", "__del__"])
def test_an_interrupt_of_the_imports_is_told_alike(where):
    """Also where Python drops what is raised."""
    code = f"""
import os, signal, sys
from hypernst.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
class Thing:
    def {where}(self):
        os.kill(os.getpid(), signal.SIGINT)
class Interrupted:
    def find_spec(name, *_):
        name == "click" and Thing()
sys.meta_path.insert(0, Interrupted)
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "hypernst: interrupted; what was finished is kept\n")


@pytest.mark.parametrize("words", [["align", "--device", "cpu"], ["--version"]])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_is_one_line_and_status_130(times, words):
    code = f"""
import os, signal
from stages.cli import main
from stages.preprocess import align
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal: jobs in the background ignore it
def interrupted(ctx):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        {times} == 2 and os.kill(os.getpid(), signal.SIGINT)
align.run = main.click.Context.exit = interrupted  # the latter after --version and --help
main.cli({words})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "hypernst: interrupted; what was finished is kept\n")
