"""Strict loading of published tensors: each one is used, none is invented, and an error names those that do not fit."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def needs_facexlib() -> Iterator[None]:
    """For imports of facexlib, which is an extra. Raises: ValueError naming the extra when one fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"its network is that of facexlib, which is not installed ({error}); install the extra: "
            "`make setup`, or `pip install 'hypernst[facexlib]'`"
        ) from error


def build(kind: type[Module], *args: object, **options: object) -> Module:
    """Build a module on the meta device, without memory for its tensors; `fill` sets them."""
    with torch.device("meta"):
        return kind(*args, **options)


def fill(net: Module, tensors: Mapping[str, Tensor], what: str) -> Module:
    """Load tensors into `net`, which was built on the meta device: in float32, frozen, in evaluation mode.

    Raises: ValueError, in one line, when tensors are missing, unexpected or of another shape. `what` names the network.
    """
    expected = net.state_dict()
    check(shapes(net), tensors, what)
    state = {name: tensors[name].to(t.dtype) for name, t in expected.items()}
    net.load_state_dict(state, strict=True, assign=True)
    return net.requires_grad_(False).eval()


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a module's state dict."""
    return {name: tuple(t.shape) for name, t in net.state_dict().items()}


def check(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], what: str) -> None:
    """Compare names and shapes. Raises: ValueError naming up to three of each kind that differ."""
    faults = []
    if missing := expected.keys() - tensors.keys():
        faults.append(f"{len(missing)} of {len(expected)} tensors are missing ({some(missing)})")
    if extra := tensors.keys() - expected.keys():
        faults.append(f"{len(extra)} tensors are unexpected ({some(extra)})")
    differ = [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if differ:
        faults.append(f"{len(differ)} have another shape ({some(differ)})")
    if faults:
        raise ValueError(f"not {what}: {'; '.join(faults)}")


def width(tensors: Mapping[str, Tensor], name: str, what: str, axis: int = 0) -> int:
    """The size of a tensor's `axis`, to infer a network's width from. Raises: ValueError when there is no such axis."""
    if name not in tensors:
        raise ValueError(f"not {what}: no {name} among {len(tensors)} tensors ({some(tensors)})")
    shape = tensors[name].shape
    if len(shape) <= axis or not shape[axis]:
        raise ValueError(f"not {what}: {name} is {list(shape)}; expected at least {axis + 1} dimensions")
    return int(shape[axis])


def some(names: Iterable[str], count: int = 3) -> str:
    """The first `count` names in sorted order, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:count]) + (f" and {len(listed) - count} more" if len(listed) > count else "")


def numbers(tensors: Iterable[str], prefix: str) -> list[int]:
    """The numbers n in names like `<prefix>n.…`, ascending."""
    parts = {name.removeprefix(prefix).split(".", 1)[0] for name in tensors if name.startswith(prefix)}
    return sorted(int(n) for n in parts if n.isdecimal())
