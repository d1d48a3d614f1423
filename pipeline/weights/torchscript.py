"""Takes the named tensors out of a TorchScript archive. The program in it is never looked at.

A scripted network is a zip: `data.pkl` is the tree of its modules, `data/N` are raw storages, `code/` is the program.
Every UserError is the rest of a sentence that begins with the file's name and "is".
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import UserError
from pipeline.weights.script_pickle import Module, Storage, View, decode
from pipeline.zips import Zip

if TYPE_CHECKING:
    import torch

PICKLE = 1 << 23  # bytes of data.pkl; a network of 160 million numbers has 0.2 million
ENTRIES, DEPTH, NAME = 100_000, 64, 1000  # attributes of all modules, modules within modules, letters of a name


class Script(NamedTuple):
    """A network's parameters and buffers by their dotted names, and its other attributes."""

    tensors: "dict[str, torch.Tensor]"
    attributes: dict[str, Any]


def read(source: Path | bytes) -> Script:
    """The tensors of a TorchScript archive in the order of its state dict, as views of its storages.

    Raises: UserError for what is none, for a pickle with anything but plain values, and for tensors outside of it.
    """
    try:
        with Zip(source) as box:
            root = _root(box)
            found = decode(bytes(box.bounded(_member(box, f"{root}/data.pkl"), PICKLE)))
            if not isinstance(found, Module):
                raise UserError("a TorchScript archive without a module")
            views, attributes = _flat(found)
            if not views:
                raise UserError(
                    "a TorchScript network without named tensors: it was frozen, which makes them constants; "
                    "export it anew without freezing"
                )
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            storages = _storages(box, root, {view.storage for view in views.values()}, size)
            return Script({name: _tensor(storages[view.storage], view) for name, view in views.items()}, attributes)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged archive leads to
        told = " ".join(str(error).split())[:100]
        raise UserError(f"a damaged TorchScript archive ({type(error).__name__}: {told}); fetch it again") from error


def _root(box: Zip) -> str:
    names = box.namelist()
    roots = {name.split("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) != len(names) or any(".." in name.split("/") for name in names):
        raise UserError(
            "a zip archive with names that are there twice, lead out of it or have several roots; "
            "expected one that PyTorch wrote"
        )
    return roots.pop()


def _member(box: Zip, name: str) -> zipfile.ZipInfo:
    try:
        return box.getinfo(name)
    except KeyError:
        raise UserError(f"a TorchScript archive without {name}; fetch it again") from None


def _flat(root: Module) -> tuple[dict[str, View], dict[str, Any]]:
    """Tensors and other attributes by their dotted names; what lies in lists and dictionaries is no state."""
    views: dict[str, View] = {}
    attributes: dict[str, Any] = {}
    left: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter(root.values.items()))]
    entries = 0
    while left:
        prefix, items = left[-1]
        for name, value in items:
            place, entries = prefix + name, entries + 1
            if entries > ENTRIES or len(left) > DEPTH or len(place) > NAME:
                raise UserError(
                    f"a TorchScript network of more than {ENTRIES} entries, or with modules within themselves"
                )
            if place in views or place in attributes:
                raise UserError(f"a TorchScript network that has {place} twice")
            if type(value) is Module:
                left.append((f"{place}.", iter(value.values.items())))
                break
            (views if type(value) is View else attributes)[place] = value
        else:
            left.pop()
    return views, attributes


def _storages(box: Zip, root: str, wanted: set[Storage], room: int) -> "dict[Storage, torch.Tensor]":
    """The numbers of each storage, 1-D, of `room` bytes at most.

    Raises: UserError when a storage does not have as many numbers as the pickle says, or they lie over each other.
    """
    import torch

    if sum(storage.numbers * getattr(torch, storage.dtype).itemsize for storage in wanted) > room:
        raise UserError(f"a TorchScript network that claims more numbers than its {room / 1e6:.1f} MB hold")
    if box.namelist().count(f"{root}/byteorder") and box.bounded(_member(box, f"{root}/byteorder"), 16) != b"little":
        raise UserError("a TorchScript network with another order of bytes than little-endian")
    out = {}
    for storage in wanted:
        info, dtype = _member(box, f"{root}/data/{storage.record}"), getattr(torch, storage.dtype)
        size = storage.numbers * dtype.itemsize
        if info.file_size != size or info.compress_type != zipfile.ZIP_STORED or info.compress_size != size:
            raise UserError(
                f"a TorchScript network whose storage {storage.record} has {info.file_size} bytes, "
                f"expected {size}, not packed"
            )
        out[storage] = torch.frombuffer(box.bounded(info, size), dtype=dtype) if size else torch.empty(0, dtype=dtype)
    return out


def _tensor(numbers: "torch.Tensor", view: View) -> "torch.Tensor":
    return numbers.as_strided(view.shape, view.stride, view.offset)
