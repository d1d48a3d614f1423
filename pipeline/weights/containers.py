"""Opens weights files of unknown origin: what kind of file the bytes are, and the object in it; no code of it runs.

Every UserError here is the rest of a sentence that begins with the file's name and "is".
"""

import argparse
import contextlib
import io
import pickle
import re
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.weights import nvidia_pickle
from pipeline.zips import Zip, judge

if TYPE_CHECKING:
    import numpy as np
    import torch

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 start
PICKLE = 1 << 26  # bytes of a file's pickle, without its tensors
UNPACKED = 8  # a TorchScript's code is compressed, tensors never are: an honest archive grows by far less


def kind(path: Path) -> str:
    """One of boundary, safetensors, script, torch, legacy, pickle. Raises: UserError for any other file."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError("a folder, a pipe or a device; expected a file of weights", 2)
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise UserError(f"not readable ({error.strerror})", 2) from error
    if not head:
        raise UserError("empty; fetch it again")
    if head.lstrip()[:1] == b"<":
        raise UserError(_page(head))
    if head.startswith(b"\x93NUMPY"):
        return "boundary"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < found.st_size:
        return "safetensors"
    if head.startswith(b"PK"):
        return _zip(path, found.st_size)
    if head.startswith(LEGACY):
        return "legacy"
    if head.startswith(b"\x80"):
        return "pickle"
    raise UserError(
        f"no weights file that is known here (it starts with {head[:8]!r}); expected PyTorch, safetensors, "
        "an NVIDIA pickle, TorchScript or a NumPy boundary"
    )


def _page(head: bytes) -> str:
    text = head.decode("utf8", "replace")
    if "quota" in text.lower():
        return "a web page saying that the download quota is exceeded, not weights; try again a day later"
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
    told = f" ({' '.join(title[1].split())[:60]})" if title else ""
    return f"a web page{told}, not weights; open its address in a browser and download the file itself"


def _zip(path: Path, size: int) -> str:
    """Whether an archive is a TorchScript or a PyTorch file; its size is judged before anything is unpacked."""
    try:
        with Zip(path) as box:
            for info in box.infolist():
                judge(info)
            names, unpacked = box.namelist(), sum(info.file_size for info in box.infolist())
            if unpacked > UNPACKED * size + 1e6:
                raise UserError(
                    f"a zip archive that would unpack to {unpacked / 1e6:.0f} MB from {size / 1e6:.2f} MB; "
                    "weights are not compressed, nothing was unpacked"
                )
            if not any(name.endswith("/data.pkl") for name in names):
                listed = f"{', '.join(names[:3])}{'…' if len(names) > 3 else ''}"
                raise UserError(f"a zip archive without a network ({listed}); unpack it, import what is inside")
            if damaged := box.testzip():
                raise UserError(f"damaged: {damaged} has another checksum; fetch it again")
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"truncated: a PyTorch file whose end is missing after {size} bytes; fetch it again") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:  # encrypted, or packed in a way Python cannot read
        raise UserError(f"a zip archive that cannot be read ({error}); expected one that PyTorch wrote") from error
    return "script" if any("/code/" in name or name.endswith("/constants.pkl") for name in names) else "torch"


def torch_object(path: Path, mmap: bool) -> Any:
    """A PyTorch file's object, by torch's allow-list and argparse.Namespace, a bag of options that runs nothing."""
    import torch

    try:
        _scan(path, mmap)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UserError:
        raise
    except Exception as error:  # torch lets any error of a damaged file through
        raise UserError(nvidia_pickle.refusal(error)) from error


def _scan(path: Path, zipped: bool) -> None:
    """Look through a file's pickles as `nvidia.scan` does; what is damaged is left for torch to tell."""
    with contextlib.suppress(pickle.UnpicklingError, ValueError, EOFError):
        if zipped:
            with Zip(path) as box:
                for info in box.infolist():
                    if info.filename.endswith("/data.pkl"):
                        nvidia_pickle.scan(io.BytesIO(box.bounded(info, PICKLE)))
            return
        with path.open("rb") as file:
            for _ in range(4):  # magic number, version, machine, object
                nvidia_pickle.scan(file)


def tensors(path: Path) -> "dict[str, torch.Tensor]":
    """A safetensors file's tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"a damaged safetensors file ({error}); fetch it again") from error


def boundary(path: Path) -> "np.ndarray":
    """A NumPy file's row of floats, [1, D]."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")  # a header may claim any size; only pages are read
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"a NumPy file that is damaged or holds objects ({error}); expected a boundary [1, 512]"
        ) from error
    if array.ndim != 2 or len(array) != 1 or array.dtype.kind != "f":
        raise UserError(f"a NumPy array {list(array.shape)} of {array.dtype}; expected a boundary [1, 512] of floats")
    return np.array(array)
