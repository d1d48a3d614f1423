"""Disks that a test mounts for a command alone."""

import contextlib
import functools
import subprocess


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
