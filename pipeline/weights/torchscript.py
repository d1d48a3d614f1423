"""Reads the named tensors of a TorchScript archive. The program in the archive is never read.

A scripted network is a zip file: `data.pkl` is the tree of its modules, `data/N` are raw storages, `code/` is the
program. Every UserError here is a whole sentence about "this file". The caller puts the file's name in front.
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
ENTRIES, DEPTH, NAME = 100_000, 64, 1000  # most attributes in all, deepest nesting of modules, longest name


class Script(NamedTuple):
    """A network's parameters and buffers by their dotted names, and its other attributes."""

    tensors: "dict[str, torch.Tensor]"
    attributes: dict[str, Any]


def read(source: Path | bytes) -> Script:
    """The tensors of a TorchScript archive in the order of its state dict, as views of its storages.

    Raises: UserError when it is no such archive, when its pickle holds more than plain values, or when a tensor lies
    outside its storage.
    """
    try:
        with Zip(source) as box:
            root = _root(box)
            module = decode(bytes(box.bounded(_member(box, f"{root}/data.pkl"), PICKLE)))
            if not isinstance(module, Module):
                raise UserError("this is a TorchScript archive without a module; export the network again")
            views, attributes = _flat(module)
            if not views:
                raise UserError(
                    "this is a TorchScript network without named tensors: it was frozen, which makes them constants; "
                    "export it again without freezing"
                )
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            storages = _storages(box, root, {view.storage for view in views.values()}, size)
            return Script({name: _tensor(storages[view.storage], view) for name, view in views.items()}, attributes)
    except UserError:
        raise
    except Exception as error:  # a damaged archive makes the readers raise errors of any type
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"this is a damaged TorchScript archive ({type(error).__name__}: {reason}); fetch it again"
        ) from error


def _root(box: Zip) -> str:
    names = box.namelist()
    roots = {name.split("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) != len(names) or any(".." in name.split("/") for name in names):
        raise UserError(
            "this is a zip archive with names that are there twice, lead out of it or have several roots; "
            "expected one that PyTorch wrote"
        )
    return roots.pop()


def _member(box: Zip, name: str) -> zipfile.ZipInfo:
    try:
        return box.getinfo(name)
    except KeyError:
        raise UserError(f"this is a TorchScript archive without {name}; fetch it again") from None


def _flat(root: Module) -> tuple[dict[str, View], dict[str, Any]]:
    """Tensors and other attributes by their dotted names; the contents of lists and dictionaries are no state."""
    views: dict[str, View] = {}
    attributes: dict[str, Any] = {}
    stack: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter(root.values.items()))]
    entries = 0
    while stack:
        prefix, items = stack[-1]
        for name, value in items:
            place, entries = prefix + name, entries + 1
            if entries > ENTRIES or len(stack) > DEPTH or len(place) > NAME:
                raise UserError(
                    f"this is a TorchScript network of more than {ENTRIES} entries, or with modules within themselves"
                )
            if place in views or place in attributes:
                raise UserError(f"this is a TorchScript network that has {place} twice")
            if type(value) is Module:
                stack.append((f"{place}.", iter(value.values.items())))
                break
            (views if type(value) is View else attributes)[place] = value
        else:
            stack.pop()
    return views, attributes


def _storages(box: Zip, root: str, wanted: set[Storage], most: int) -> "dict[Storage, torch.Tensor]":
    """The numbers of each wanted storage as 1-D tensors, at most `most` bytes in all.

    Raises: UserError when a storage does not have the size that the pickle says, or all claim more than `most`.
    """
    import torch

    if sum(storage.numbers * getattr(torch, storage.dtype).itemsize for storage in wanted) > most:
        raise UserError(f"this is a TorchScript network that claims more numbers than its {most / 1e6:.1f} MB hold")
    if box.namelist().count(f"{root}/byteorder") and box.bounded(_member(box, f"{root}/byteorder"), 16) != b"little":
        raise UserError("this is a TorchScript network with another order of bytes; expected little-endian")
    out = {}
    for storage in wanted:
        info, dtype = _member(box, f"{root}/data/{storage.record}"), getattr(torch, storage.dtype)
        size = storage.numbers * dtype.itemsize
        if info.file_size != size or info.compress_type != zipfile.ZIP_STORED or info.compress_size != size:
            raise UserError(
                f"this is a TorchScript network whose storage {storage.record} has {info.file_size} bytes, "
                f"expected {size}, not packed"
            )
        out[storage] = torch.frombuffer(box.bounded(info, size), dtype=dtype) if size else torch.empty(0, dtype=dtype)
    return out


def _tensor(numbers: "torch.Tensor", view: View) -> "torch.Tensor":
    return numbers.as_strided(view.shape, view.stride, view.offset)
