"""The device of a run: checked at the start, looked up only when there is something to compute."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import say

NAMES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")
GPU_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # without any of these files a Linux machine has no GPU


def check(name: str) -> str:
    """The name itself. Raises: UserError(2) when no device can have this name."""
    if not isinstance(name, str) or not NAMES.fullmatch(name):
        raise UserError(f"--device {name}: no such device; expected auto, cpu, cuda or cuda:1", 2)
    return name


def resolve(name: str) -> str:
    """The device to use for `name`; "auto" is a GPU if there is one, else the CPU.

    Raises: UserError(2) when the device cannot be used.
    """
    there = [node for node in GPU_NODES if Path(node).exists()]
    if check(name) == "cpu" or (name == "auto" and not there and sys.platform not in ("darwin", "win32")):
        return "cpu"
    import torch

    if name == "auto":
        if not torch.cuda.is_available():
            if there:
                say(f"--device auto: the CPU, although {there[0]} shows a GPU: {_why_not()}")
            return "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda"
    if name == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # each process of torchrun has its own GPU
    try:
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)  # else the first GPU would be used for what names none
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name}: cannot be used ({str(error).splitlines()[0]}); use cpu or auto", 2
        ) from error
    # Convolutions in TF32 would give caches and measurements other digits than a CPU does.
    torch.backends.cudnn.allow_tf32 = False
    return name


def _why_not() -> str:
    """Why PyTorch finds no CUDA, in one line."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).splitlines()[0]} (PyTorch {torch.__version__})"
    return "PyTorch finds none"


def has_bfloat16(name: str) -> bool:
    """Whether a device computes in bfloat16; GPUs from before 2020 only emulate it, slower than float32."""
    import torch

    return not name.startswith("cuda") or torch.cuda.is_bf16_supported(including_emulation=False)


def deterministic() -> None:
    """Make operations on a GPU give the same bits each time, slower; what cannot is told by a warning of PyTorch."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def tuned(name: str) -> Iterator[None]:
    """Within it a GPU tries which convolution is fastest for a shape, as training has few, and multiplies in TF32."""
    if not name.startswith("cuda"):
        yield
        return
    from torch.backends import cuda, cudnn

    former = cudnn.benchmark, cudnn.allow_tf32, cuda.matmul.allow_tf32
    cudnn.benchmark = cudnn.allow_tf32 = cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, cuda.matmul.allow_tf32 = former


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a layer frees for the next one, instead of giving it back and asking for more.

    The system zeroes each new page: a fifth of the processor time of a rendering.
    """
    import ctypes

    trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap, 32 << 20)  # the most that it takes
        libc.mallopt(trim, (2 << 30) - 1)


def held() -> int:
    """Bytes of main memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def memory() -> tuple[int, int]:
    """Bytes of main memory: those that the machine has, and those that are available now."""
    import psutil

    found = psutil.virtual_memory()
    return found.total, found.available


def peak_memory() -> int:
    """The most bytes of main memory that this process has held."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
