"""Locks between processes: one run at a time on a folder; a second one stops at once and says who holds it."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import disk_error


@contextmanager
def lock(cache: Path, stage: str) -> Iterator[None]:
    """Hold the folder `cache` for this process. The lock ends with the process, so a killed run blocks nobody.

    Raises: UserError at once when another run holds it; the message names its stage, pid and host.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = open(cache / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise disk_error(error, cache / ".lock") from error
    with handle as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{cache}: in use by {_holder(f.fileno())}; wait for it or stop it, then run again"
            ) from None
        f.truncate(0)
        f.write(json.dumps({"pid": os.getpid(), "stage": stage, "host": socket.gethostname()}))
        f.flush()
        try:
            yield
        finally:
            f.truncate(0)


def _holder(handle: int) -> str:
    try:
        h = json.loads(os.pread(handle, 4096, 0))
        return f"stage {h['stage']} (pid {h['pid']} on {h['host']})"
    except (ValueError, KeyError):
        return "another run"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; wait while another process has it.

    The file is created when it is missing. Raises: UserError when its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
