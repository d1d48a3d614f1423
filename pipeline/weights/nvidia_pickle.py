"""Reads StyleGAN2 networks from NVIDIA's pickles without running the code inside them, as NVIDIA's own loader does.

Each module is pickled as the source of its class and its state. The state is kept; the source is never read. A pickle
may ask only for names on a list. The tensors are then renamed to rosinality's layout.
Every UserError here is a whole sentence about "this file". The caller puts the file's name in front: `FILE: ...`.
"""

import collections
import io
import math
import pickle
import pickletools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch

OLD = ("dnnlib.tflib", "tfutil", "network")
MODULES, MEMO = 10_000, 10_000_000  # most modules and most remembered objects; networks have far fewer
TUPLES = 50_000  # most tuples; hashing 100,000 nested ones makes Python crash
REFUSED = "which weights never need; nothing in it was run or loaded"


class Module:
    """A pickled module without its code: the name of its class and its attributes."""

    def __init__(self, name: str, state: Mapping[str, Any]) -> None:
        self.name, self.state = name, state

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Parameters and buffers by their dotted names, as a state dict has them.

        Raises: UserError when this is no tree of modules with tensors.
        """
        import torch

        out: dict[str, torch.Tensor] = {}
        queue: list[tuple[str, Any]] = [("", self)]
        for prefix, module in queue:
            tables = [module.state.get(name, {}) for name in ("_parameters", "_buffers", "_modules")]
            if len(queue) > MODULES or not all(isinstance(table, Mapping) for table in tables):
                raise UserError(f"this is a pickle whose module {prefix or '(root)'} is no tree of PyTorch's modules")
            for key, tensor in (*tables[0].items(), *tables[1].items()):
                if tensor is None:
                    continue
                if not isinstance(tensor, torch.Tensor) or tensor.numel() > tensor.untyped_storage().nbytes():
                    raise UserError(f"this is a pickle whose {prefix}{key} is no plain tensor")
                out[f"{prefix}{key}"] = tensor
            queue += [(f"{prefix}{key}.", m) for key, m in tables[2].items() if isinstance(m, Module)]
        return out


class EasyDict(dict):
    """NVIDIA's dictionary, as a plain one."""


def _module(meta: Mapping[str, Any]) -> Module:
    return Module(str(meta.get("class_name", "?")), dict(meta.get("state") or {}))


def _parameter(data: "torch.Tensor", *_: Any) -> "torch.Tensor":
    return data


def _storage(data: bytes) -> Any:
    import torch

    try:  # the storage's own pickle, read with torch's allow-list
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(refusal(error)) from error


def refusal(error: Exception) -> str:
    """The message for an error of torch's loader: what the pickle asks for in vain, or that the file is damaged."""
    text = " ".join(str(error).split())
    if asked := re.search(r"GLOBAL ([\w.]+)|(?:unrecognized function|unsupported class) (\S+)", text):
        return f"this is a pickle that asks for {asked[1] or asked[2]}, {REFUSED}"
    if asked := re.search(r"Unsupported operand (\d+)", text):
        return f"this is a pickle with the instruction {int(asked[1]):#04x}, {REFUSED}"
    text = text.rpartition("WeightsUnpickler error: ")[2]
    return f"this file is truncated or damaged ({type(error).__name__}: {text[:100]}); fetch it again"


class Unpickler(pickle.Unpickler):
    """Admits plain values, arrays, tensors and persistent modules, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The object for a name on the list. Raises: UserError when the name is not listed."""
        import torch
        from numpy._core.multiarray import _reconstruct, scalar

        allowed: dict[tuple[str, str], Any] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _module,
            ("dnnlib.util", "EasyDict"): EasyDict,
            ("dnnlib", "EasyDict"): EasyDict,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("builtins", "set"): set, ("builtins", "frozenset"): frozenset, ("builtins", "complex"): complex,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch.storage", "_load_from_bytes"): _storage,
            ("torch", "Size"): torch.Size, ("torch", "device"): torch.device,
            ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }  # fmt: skip
        for numpy in ("numpy.core.multiarray", "numpy._core.multiarray"):
            allowed |= {(numpy, "_reconstruct"): _reconstruct, (numpy, "scalar"): scalar}
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.startswith(OLD):
            raise UserError(
                "this is a pickle of StyleGAN's TensorFlow code, which this program does not read; convert it with "
                "legacy.py of stylegan2-ada-pytorch, or get that project's file of the same name"
            )
        asked = (module.replace("__builtin__", "builtins"), name)
        if asked not in allowed:
            raise UserError(f"this is a pickle that asks for {module}.{name}, {REFUSED}")
        return allowed[asked]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def scan(file: BinaryIO) -> None:
    """Read a pickle's instructions without running them.

    Raises: UserError when running them would fill the memory or crash Python.
    """
    tuples = 0
    for code, place, _ in pickletools.genops(file):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(place or 0) > MEMO:
            raise UserError(f"this is a pickle that remembers {place} objects, {REFUSED}")
        tuples += code.name.startswith("TUPLE")
        if tuples > TUPLES:
            raise UserError(f"this is a pickle of more than {TUPLES} tuples, {REFUSED}")


def load(path: Path) -> Any:
    """The object in a pickle. Raises: UserError when it asks for what is not listed, or is damaged."""
    try:
        with path.open("rb") as file:
            scan(file)
            file.seek(0)
            return Unpickler(file).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle makes Python raise errors of any type
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"this is a truncated or damaged pickle ({type(error).__name__}: {reason}); fetch it again"
        ) from error


def _module_of(network: Any, *names: str) -> Module | None:
    """The first of the named modules that a file has; a module pickled alone is taken as it is."""
    if isinstance(network, Module):
        return network
    candidates = (network.get(name) for name in names) if isinstance(network, Mapping) else ()
    return next((module for module in candidates if isinstance(module, Module)), None)


def generator(network: Any) -> "dict[str, torch.Tensor]":
    """The EMA generator (`G_ema`, else `G`) of an unpickled file in rosinality's layout, with `latent_avg`.

    Empty when the file has no generator. Raises: UserError when it has another architecture.
    """
    module = _module_of(network, "G_ema", "G")
    source = module.tensors() if module else {}
    if any(name.startswith("synthesis.L0_") for name in source):
        raise UserError("this is a StyleGAN3 generator; expected StyleGAN2")
    if not any(name.startswith("synthesis.b4.") for name in source):
        return {}
    if any(name.startswith("mapping.embed.") for name in source):
        raise UserError("this is a class-conditional StyleGAN2 generator; expected an unconditional one")
    return {key: value.float() for name, tensor in source.items() for key, value in _rename(name, tensor)}


def discriminator(network: Any) -> "dict[str, torch.Tensor]":
    """The discriminator `D` of an unpickled file in rosinality's layout; empty when the file has none."""
    module = _module_of(network, "D")
    source = module.tensors() if module else {}
    if "b4.out.weight" not in source:
        return {}
    top = max(int(match[1]) for name in source if (match := _DISCRIMINATOR.fullmatch(name)))
    return {
        key: value.float() for name, tensor in source.items() for key, value in _rename_discriminator(name, tensor, top)
    }


_BLOCK = re.compile(r"synthesis\.b(\d+)\.(?:(conv0|conv1|torgb)\.)?(.+)")
_MAPPING = re.compile(r"mapping\.fc(\d+)\.(weight|bias)")
_STYLED = {"affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}


def _rename(name: str, tensor: "torch.Tensor") -> "Iterator[tuple[str, torch.Tensor]]":
    """The names that one of NVIDIA's tensors has in rosinality's layout; resampling filters become its kernels."""
    if name == "mapping.w_avg":
        yield "latent_avg", tensor
    elif match := _MAPPING.fullmatch(name):
        yield f"style.{int(match[1]) + 1}.{match[2]}", tensor
    elif match := _BLOCK.fullmatch(name):
        block, layer, leaf = int(match[1]).bit_length() - 3, match[2], match[3]
        if leaf == "const":
            yield "input.input", tensor[None]
        elif layer == "torgb":
            place = f"to_rgbs.{block - 1}" if block else "to_rgb1"
            if leaf == "bias":
                yield f"{place}.bias", tensor.reshape(1, -1, 1, 1)
            else:
                yield f"{place}.{_STYLED.get(leaf, f'conv.{leaf}')}", tensor[None] if leaf == "weight" else tensor
        elif layer:
            yield from _styled(block, layer, leaf, tensor)
        elif leaf == "resample_filter":
            if block:
                yield f"to_rgbs.{block - 1}.upsample.kernel", tensor * 4
        else:
            yield name, tensor  # unknown: the check of the structure names it
    else:
        yield name, tensor


def _styled(block: int, layer: str, leaf: str, tensor: "torch.Tensor") -> "Iterator[tuple[str, torch.Tensor]]":
    index = 2 * block - (2 if layer == "conv0" else 1)
    place = f"convs.{index}" if block else "conv1"
    if leaf == "resample_filter":
        if layer == "conv0":
            yield f"{place}.conv.blur.kernel", tensor * 4
    elif leaf == "weight":
        yield f"{place}.conv.weight", tensor[None]
    elif leaf == "bias":
        yield f"{place}.activate.bias", tensor
    elif leaf == "noise_strength":
        yield f"{place}.noise.weight", tensor.reshape(1)
    elif leaf == "noise_const":
        yield f"noises.noise_{index + 1 if block else 0}", tensor[None, None]
    else:
        yield f"{place}.{_STYLED.get(leaf, leaf)}", tensor


_DISCRIMINATOR = re.compile(r"b(\d+)\.(?:(fromrgb|conv0|conv1|skip|conv|fc|out)\.)?(.+)")
_LAST = {"conv": ("final_conv.0", "final_conv.1"), "fc": ("final_linear.0",) * 2, "out": ("final_linear.1",) * 2}


def _rename_discriminator(name: str, tensor: "torch.Tensor", top: int) -> "Iterator[tuple[str, torch.Tensor]]":
    """The names that one of the discriminator's tensors has in rosinality's layout; its input has `top` px."""
    match = _DISCRIMINATOR.fullmatch(name)
    layer, leaf = (match[2], match[3]) if match else (None, "")
    index = 1 + int(math.log2(top / int(match[1]))) if match else 0
    halving = {"conv1": f"convs.{index}.conv2", "skip": f"convs.{index}.skip"}.get(layer or "")
    if leaf == "resample_filter":
        if halving:  # the other layers have a filter and never use it
            yield f"{halving}.0.kernel", tensor
    elif halving and leaf in ("weight", "bias"):
        yield f"{halving}.{1 if leaf == 'weight' else 2}.{leaf}", tensor
    elif layer and leaf in ("weight", "bias"):
        places = _LAST.get(layer) or tuple(f"convs.{0 if layer == 'fromrgb' else f'{index}.conv1'}.{i}" for i in (0, 1))
        yield f"{places[leaf == 'bias']}.{leaf}", tensor
    else:
        yield name, tensor  # unknown: the check of the structure names it
