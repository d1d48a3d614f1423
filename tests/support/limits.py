"""Runs Python code in a separate process with limits of memory and time, and measures its memory."""

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

HEAD = "import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
# not ru_maxrss, which a process inherits from the one that starts it
TAIL = "\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"


def limited(code: str, *arguments: object, seconds: float = 60) -> tuple[str, int]:
    """What the code prints, and its peak memory in MB; `arguments` are its `sys.argv`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code + TAIL, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip(), int(done.stderr.split()[-1]) // 1000


@functools.cache
def alone() -> tuple[str, ...]:
    """How to run a command that may mount; () where that is not to be had."""
    for flags in ("-m", "-rm"):
        command = ("unshare", flags)
        with contextlib.suppress(OSError):
            tried = subprocess.run(
                [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
            )
            if tried.returncode == 0:
                return command
    return ()
