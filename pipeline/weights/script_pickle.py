"""Decodes the pickle of a TorchScript archive to plain values: modules, names, and tensors as places in a storage.

Python's own unpickler makes whatever a pickle asks for. The machine here has instructions for plain values only, so
there is nothing that a file could call.
Every UserError here is a whole sentence about "this file". The caller puts the file's name in front: `FILE: ...`.
"""

import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.errors import UserError

STEPS = 500_000  # most instructions; a network of 160 million numbers has about 20,000
DIMENSIONS = 8  # most dimensions of a tensor
REFUSED = "which weights never need; nothing in it was run or loaded"
TYPES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
         "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}  # fmt: skip
FIRST = {f"build_{kind}list" for kind in ("int", "tensor", "double", "bool")} | {"restore_type_tag"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
ARGUMENTS = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1"}


@dataclass(eq=False)
class Module:
    """A module without its code: its attributes."""

    values: dict[str, Any] = field(default_factory=dict)


class Name(NamedTuple):
    """A class or function that a pickle names; it stays a name."""

    module: str
    name: str


class Storage(NamedTuple):
    """A file of the archive that holds this many `numbers` of the type `dtype`."""

    record: str
    dtype: str
    numbers: int


class View(NamedTuple):
    """A tensor as part of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def decode(data: bytes) -> Any:
    """The value of a pickle.

    Raises: UserError when an instruction or a name is not listed; any error when the pickle is damaged.
    """
    return _Machine().run(data)


class _Machine:
    """A stack, its marks and a memo, with one method per instruction; no method calls what a pickle names."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The value that the instructions build."""
        for step, (code, argument, _) in enumerate(pickletools.genops(data)):
            if step > STEPS:
                raise UserError(f"this is a pickle of more than {STEPS} instructions, {REFUSED}")
            if code.name == "STOP":
                return self.stack.pop()
            do = getattr(self, f"_{code.name.lower()}", None)
            if code.name in CONSTANTS:
                self.stack.append(CONSTANTS[code.name])
            elif code.name in ARGUMENTS:
                self.stack.append(argument)
            elif do is None:
                raise UserError(f"this is a pickle with the instruction {code.name}, {REFUSED}")
            else:
                do(argument)
        raise ValueError("the pickle has no end")

    def _proto(self, version: int) -> None:
        if version != 2:
            raise UserError(f"this is a pickle of version {version}; expected 2, as PyTorch writes")

    def _mark(self, _: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    _long_binput = _binput

    def _binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _long_binget = _binget

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _tuple(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _tuple1(self, _: None, count: int = 1) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _tuple2(self, _: None) -> None:
        self._tuple1(None, 2)

    def _tuple3(self, _: None) -> None:
        self._tuple1(None, 3)

    def _append(self, _: None) -> None:
        item = self.stack.pop()
        _plain(self.stack[-1], list).append(item)

    def _appends(self, _: None) -> None:
        items = self._since_mark()
        _plain(self.stack[-1], list).extend(items)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self, _: None) -> None:
        self._fill(self._since_mark())

    def _fill(self, items: list[Any]) -> None:
        table = _plain(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise UserError(f"this is a pickle with a key that is a {type(key).__name__}, {REFUSED}")
            table[key] = value

    def _global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        storage = module == "torch" and name.removesuffix("Storage") in TYPES and name.endswith("Storage")
        others = {("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), ("torch", "device")}
        listed = (module, name) in others or (module == "torch.jit._pickle" and name in FIRST)
        if not (storage or listed or re.fullmatch(r"__torch__(\.\w+)*", module)):
            raise UserError(f"this is a pickle that asks for {module}.{name}, {REFUSED}")
        self.stack.append(Name(module, name))

    def _binpersid(self, _: None) -> None:
        kind, name, record, _place, count = self.stack.pop()
        words = (kind, name, record, count)
        if [type(word) for word in words] != [str, Name, str, int] or kind != "storage" or count < 0:
            raise UserError(f"this is a pickle with a reference to something other than numbers, {REFUSED}")
        self.stack.append(Storage(record, TYPES[name.name.removesuffix("Storage")], count))

    def _newobj(self, _: None) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or not name.module.startswith("__torch__") or arguments != ():
            raise UserError(f"this is a pickle that makes something other than a module, {REFUSED}")
        self.stack.append(Module())

    def _build(self, _: None) -> None:
        state, module = self.stack.pop(), self.stack[-1]
        if type(module) is not Module or type(state) is not dict or any(type(key) is not str for key in state):
            raise UserError(f"this is a pickle that changes something other than a module, {REFUSED}")
        module.values = state

    def _reduce(self, _: None) -> None:
        arguments, name = _plain(self.stack.pop(), tuple), _plain(self.stack.pop(), Name)
        if name.name in FIRST:
            self.stack.append(arguments[0])
        elif name.name == "_rebuild_tensor_v2":
            self.stack.append(_view(*arguments[:4]))
        elif name.name == "OrderedDict" and not arguments:
            self.stack.append({})
        elif name.name == "device":
            self.stack.append(str(_plain(arguments[0], str)))
        else:
            raise UserError(f"this is a pickle that calls {name.module}.{name.name}, {REFUSED}")


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise UserError(f"this is a pickle with a {type(value).__name__} in place of a {kind.__name__}, {REFUSED}")
    return value


def _view(storage: Any, offset: Any, shape: Any, stride: Any) -> View:
    """A tensor's place in its storage. Raises: UserError when it is not inside the storage."""
    numbers = [offset, *_plain(shape, tuple), *_plain(stride, tuple)]
    whole = all(type(n) is int and 0 <= n < 2**63 for n in numbers)
    if type(storage) is not Storage or not whole or len(shape) > DIMENSIONS:
        raise UserError(f"this is a pickle with a tensor that is not plain numbers, {REFUSED}")
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.numbers:
        raise UserError(
            f"this is a TorchScript network with a tensor {list(shape)} outside its {storage.numbers} numbers"
        )
    return View(storage, offset, shape, stride)
