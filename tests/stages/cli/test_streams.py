"""Streams that are closed, full or not read, and the interrupt: each ends a command with its status and one line."""

import os
import signal
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


SIGNALS = {
    signal.SIGINT: "hypernst: interrupted; what was finished is kept\n",
    signal.SIGTERM: "hypernst: terminated; what was finished is kept\n",
}
START = """
import os, signal, sys
from hypernst.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal: jobs in the background ignore it
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("where", ["__init__", "__del__"])
def test_a_signal_during_the_imports_is_told_alike(where, number):
    """Also where Python drops what is raised."""
    code = f"""{START}
class Thing:
    def {where}(self):
        os.kill(os.getpid(), {number})
class Interrupted:
    def find_spec(name, *_):
        name == "click" and Thing()
sys.meta_path.insert(0, Interrupted)
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, SIGNALS[number])


@pytest.mark.parametrize(
    ("words", "place", "number", "times"),
    [
        ("--version", "click.Context.exit", signal.SIGINT, 1),  # as after --help
        ("--version", "click.Context.exit", signal.SIGTERM, 2),  # `timeout` sends it twice
        ("align --device cpu", "stages.preprocess.align.run", signal.SIGINT, 2),
        ("quality --device cpu .", "stages.evaluate.quality.run", signal.SIGTERM, 1),
    ],
)
def test_a_signal_is_one_line_and_its_status(words, place, number, times, tmp_path):
    """Of every command, as one group runs them all. What is half written goes; Python is not taken apart."""
    code = f"""{START}
import atexit, importlib
atexit.register(print, "at the end")
class Broken:
    def __del__(self, abort=os.abort):
        abort()
sys.broken = Broken()
from pathlib import Path
from pipeline.files import replacing
def stopped(*_, **__):
    with replacing(Path({str(tmp_path / "x.png")!r})) as half:
        half.write_bytes(b"half")
        try:
            os.kill(os.getpid(), {number})
        finally:
            {times} == 2 and os.kill(os.getpid(), {number})
module, name = "{place}".rsplit(".", 1)
place = importlib.import_module(module) if module[0] == "s" else importlib.import_module("click").Context
setattr(place, name, stopped)
sys.argv[1:] = "{words}".split()
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, SIGNALS[number]) and not [*tmp_path.iterdir()]
    assert done.stdout.endswith("at the end\n")


def test_a_folder_that_has_gone_is_told(tmp_path):
    line = f"mkdir gone; cd gone; rmdir ../gone; exec '{sys.executable}' -m hypernst weights list"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", line]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "hypernst: the folder in which it runs has gone; change to another\n" in done.stderr
