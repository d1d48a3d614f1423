"""What can be shown here of macOS and Windows: all imports without Linux's modules, locks hold, devices are found.

Python is told that it runs elsewhere after the libraries are imported; only our own code sees the difference.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = {
    "darwin": ({}, ("sched_getaffinity",)),
    "win32": (
        {"fcntl", "resource", "termios", "pwd", "grp", "tty", "pty"},
        ("register_at_fork", "fork", "sysconf", "pread", "preadv", "pwrite", "O_NOFOLLOW", "O_NONBLOCK", "geteuid",
         "getuid", "sched_getaffinity", "mkfifo", "statvfs"),
    ),
}  # fmt: skip
ELSEWHERE = """
import fcntl, importlib, os, pkgutil, sys, types
from pathlib import Path
import click, cv2, fsspec, h5py, httpx2, numpy, pillow_heif, psutil, safetensors.torch, tensorboardX, torch, torchvision
import torch.multiprocessing, torch.utils.data, torch.distributed, torch._dynamo, tqdm, unearth, jinja2
from PIL import Image
Path.home()  # asks for things that go next

def locking(handle, how, size):
    fcntl.flock(handle, how)

platform, modules, names = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
now = fcntl.LOCK_EX | fcntl.LOCK_NB
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_LOCK=fcntl.LOCK_EX, LK_NBLCK=now)
sys.modules.update(dict.fromkeys(modules))
for name in names:
    if hasattr(os, name):
        delattr(os, name)
sys.platform = platform
for room in ("pipeline", "models", "stages"):
    package = importlib.import_module(room)
    for found in pkgutil.walk_packages(package.__path__, f"{room}."):
        importlib.import_module(found.name)

from pipeline import device, locks
from pipeline.errors import UserError
with locks.lock(Path("held"), "align"):
    handle = os.open("held/.lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("not locked")
    except OSError:
        print(os.read(handle, 99).decode())
with locks.locked(Path("waiting.lock")), locks.reading(Path("held")):
    pass
total, free = device.memory()
assert 0 < free < total
torch.backends.mps.is_available = lambda: platform == "darwin"
print(device.resolve("auto"))
"""


@pytest.mark.parametrize(("platform", "found"), [("darwin", "mps"), ("win32", "cpu")])
def test_our_code_asks_for_nothing_that_another_system_lacks(tmp_path: Path, platform: str, found: str) -> None:
    modules, names = MISSING[platform]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, platform, " ".join(modules), " ".join(names)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    holder, device = done.stdout.splitlines()
    assert '"stage": "align"' in holder and device == found
