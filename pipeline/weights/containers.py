"""Opens weights files of unknown origin: tells their kind by their bytes and reads the object; no code in them runs.

Every UserError here is a whole sentence about "this file". The caller puts the file's name in front: `FILE: ...`.
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

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first bytes of files of torch before 1.6
PICKLE = 1 << 26  # bytes of a file's pickle, without its tensors
UNPACKED = 8  # most times an archive may grow when unpacked; TorchScript compresses its code only, never tensors


def kind(path: Path) -> str:
    """The kind of a weights file: boundary, safetensors, script, torch, legacy or pickle.

    Raises: UserError when the file is of another kind, cannot be read or is damaged.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError("this is a folder, a pipe or a device; expected a file of weights", 2)
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise UserError(f"this file is not readable ({error.strerror}); check its name and permissions", 2) from error
    if not head:
        raise UserError("this file is empty; fetch it again")
    if head.lstrip()[:1] == b"<":
        raise UserError(_page(head))
    if head.startswith(b"\x93NUMPY"):
        return "boundary"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < status.st_size:
        return "safetensors"
    if head.startswith(b"PK"):
        return _zip(path, status.st_size)
    if head.startswith(LEGACY):
        return "legacy"
    if head.startswith(b"\x80"):
        return "pickle"
    raise UserError(
        f"this is no weights file that is known here (it starts with {head[:8]!r}); expected PyTorch, safetensors, "
        "an NVIDIA pickle, TorchScript or a NumPy boundary"
    )


def _page(head: bytes) -> str:
    """What to say about a web page that was saved in place of the weights."""
    text = head.decode("utf8", "replace")
    if "quota" in text.lower():
        return "this is a web page saying that the download quota is exceeded, not weights; try again in a day"
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
    shown = f" ({' '.join(title[1].split())[:60]})" if title else ""
    return f"this is a web page{shown}, not weights; open its address in a browser and download the file itself"


def _zip(path: Path, size: int) -> str:
    """Whether an archive is a TorchScript or a PyTorch file: "script" or "torch".

    The unpacked size is checked before anything is unpacked.
    """
    try:
        with Zip(path) as box:
            for info in box.infolist():
                judge(info)
            names, unpacked = box.namelist(), sum(info.file_size for info in box.infolist())
            if unpacked > UNPACKED * size + 1e6:
                raise UserError(
                    f"this is a zip archive that would unpack to {unpacked / 1e6:.0f} MB from {size / 1e6:.2f} MB; "
                    "weights are not compressed, so nothing was unpacked; get the file from its publisher"
                )
            if not any(name.endswith("/data.pkl") for name in names):
                listed = f"{', '.join(names[:3])}{'…' if len(names) > 3 else ''}"
                raise UserError(
                    f"this is a zip archive without a network ({listed}); unpack it and import the file inside"
                )
            if damaged := box.testzip():
                raise UserError(f"this file is damaged: {damaged} has another checksum; fetch it again")
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"this file is truncated: its end is missing after {size} bytes; fetch it again") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:  # encrypted, or packed in a way Python cannot read
        raise UserError(
            f"this is a zip archive that cannot be read ({error}); expected one that PyTorch wrote"
        ) from error
    return "script" if any("/code/" in name or name.endswith("/constants.pkl") for name in names) else "torch"


def torch_object(path: Path, mmap: bool) -> Any:
    """The object in a PyTorch file, on the CPU.

    Only torch's allow-list and argparse.Namespace (a plain set of options) are admitted.
    Raises: UserError when the file asks for anything else, or is damaged.
    """
    import torch

    try:
        _scan(path, mmap)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes torch raise errors of any type
        raise UserError(nvidia_pickle.refusal(error)) from error


def _scan(path: Path, zipped: bool) -> None:
    """Check a file's pickles as `nvidia_pickle.scan` does; torch reports damage afterwards."""
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
    """The tensors of a safetensors file by name. Raises: UserError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"this is a damaged safetensors file ({error}); fetch it again") from error


def boundary(path: Path) -> "np.ndarray":
    """The direction in a NumPy file: floats [1, D], or [L, D] or [1, L, D] for each layer.

    Raises: UserError when the file holds anything else.
    """
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")  # a header may claim any size; only pages are read
    except (ValueError, EOFError, OSError) as error:
        raise UserError(
            f"this is a NumPy file that is damaged or holds objects ({error}); expected a boundary [1, 512]"
        ) from error
    if not 2 <= array.ndim <= 3 or array.shape[:-2] not in ((), (1,)) or len(array) > 64 or array.dtype.kind != "f":
        shown = f"{list(array.shape)} of {array.dtype}"
        raise UserError(f"this is a NumPy array {shown}; expected a boundary [1, 512] of floats")
    return np.array(array)
