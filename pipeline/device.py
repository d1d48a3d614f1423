"""The device of a run: checked at the start, looked up only when there is something to compute."""

import contextlib
import os
import re
from pathlib import Path

from pipeline.errors import UserError

NAMES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")
GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # without any of these files the machine has no GPU


def check(name: str) -> str:
    """The name itself. Raises: UserError(2) when no device can have this name."""
    if not NAMES.fullmatch(name):
        raise UserError(f"--device {name}: no such device; expected auto, cpu, cuda or cuda:1", 2)
    return name


def resolve(name: str) -> str:
    """The device to use for `name`; "auto" is a GPU if there is one, else the CPU.

    Raises: UserError(2) when the device cannot be used.
    """
    if check(name) == "cpu" or (name == "auto" and not any(Path(node).exists() for node in GPU_NODES)):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name}: cannot be used ({str(error).splitlines()[0]}); use cpu or auto", 2
        ) from error
    return name


def memory() -> tuple[int, int]:
    """Bytes of main memory: those that the machine has, and those that are available now."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError, AttributeError):  # Linux also counts what it could free
        free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    return total, free
