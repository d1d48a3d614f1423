"""Reads StyleGAN2 networks out of NVIDIA's pickles, whose own way of loading runs the code inside them.

Every module there is pickled as its class's source and its state. The state is kept, the source never looked at, and
what a pickle may ask for is listed; the tensors are then renamed to rosinality's layout.
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
MODULES, MEMO = 10_000, 10_000_000  # far more than any network has: of modules, of objects that a pickle remembers
TUPLES = 50_000  # as well; of a hundred thousand within each other Python cannot take the hash, and falls over
REFUSED = "which weights never need; nothing in it was run or loaded"


class Module:
    """What is left of a pickled module: its class's name and its attributes."""

    def __init__(self, name: str, state: Mapping[str, Any]) -> None:
        self.name, self.state = name, state

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Parameters and buffers by their dotted names, as a state dict has them.

        Raises: UserError, the rest of a sentence, for what is no tree of modules with tensors.
        """
        import torch

        out: dict[str, torch.Tensor] = {}
        waiting: list[tuple[str, Any]] = [("", self)]
        for prefix, module in waiting:
            tables = [module.state.get(name, {}) for name in ("_parameters", "_buffers", "_modules")]
            if len(waiting) > MODULES or not all(isinstance(table, Mapping) for table in tables):
                raise UserError(f"a pickle whose module {prefix or '(the whole)'} is no tree of PyTorch's modules")
            for key, tensor in (*tables[0].items(), *tables[1].items()):
                if tensor is None:
                    continue
                if not isinstance(tensor, torch.Tensor) or tensor.numel() > tensor.untyped_storage().nbytes():
                    raise UserError(f"a pickle whose {prefix}{key} is no plain tensor")
                out[f"{prefix}{key}"] = tensor
            waiting += [(f"{prefix}{key}.", m) for key, m in tables[2].items() if isinstance(m, Module)]
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
    """What torch's allow-list has against a pickle, as the rest of a sentence; else that it is damaged."""
    text = " ".join(str(error).split())
    if asked := re.search(r"GLOBAL ([\w.]+)|(?:unrecognized function|unsupported class) (\S+)", text):
        return f"a pickle that asks for {asked[1] or asked[2]}, {REFUSED}"
    if asked := re.search(r"Unsupported operand (\d+)", text):
        return f"a pickle with the instruction {int(asked[1]):#04x}, {REFUSED}"
    text = text.rpartition("WeightsUnpickler error: ")[2]
    return f"truncated or damaged ({type(error).__name__}: {text[:100]}); fetch it again"


class Unpickler(pickle.Unpickler):
    """Admits plain values, arrays, tensors and persistent modules, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
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
                "a pickle of StyleGAN's TensorFlow code, which this program does not read; convert it with "
                "legacy.py of stylegan2-ada-pytorch, or get that project's file of the same name"
            )
        wanted = (module.replace("__builtin__", "builtins"), name)
        if wanted not in allowed:
            raise UserError(f"a pickle that asks for {module}.{name}, {REFUSED}")
        return allowed[wanted]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def scan(file: BinaryIO) -> None:
    """Look through a pickle, running nothing. Raises: UserError for one that would fill the memory or crash."""
    tuples = 0
    for code, place, _ in pickletools.genops(file):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(place or 0) > MEMO:
            raise UserError(f"a pickle that remembers {place} objects, {REFUSED}")
        tuples += code.name.startswith("TUPLE")
        if tuples > TUPLES:
            raise UserError(f"a pickle of more than {TUPLES} tuples, {REFUSED}")


def load(path: Path) -> Any:
    """The pickle's object. Raises: UserError telling what the file is instead, as the rest of a sentence."""
    try:
        with path.open("rb") as file:
            scan(file)
            file.seek(0)
            return Unpickler(file).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in any way at all
        told = " ".join(str(error).split())[:100]
        raise UserError(f"a truncated or damaged pickle ({type(error).__name__}: {told}); fetch it again") from error


def _module_of(network: Any, *names: str) -> Module | None:
    """The first of the named modules that a file has; one pickled alone is told by its tensors."""
    if isinstance(network, Module):
        return network
    found = (network.get(name) for name in names) if isinstance(network, Mapping) else ()
    return next((module for module in found if isinstance(module, Module)), None)


def generator(network: Any) -> "dict[str, torch.Tensor]":
    """The averaged generator (`G_ema`, else `G`) of an unpickled file in rosinality's layout, with `latent_avg`.

    Nothing where there is none. Raises: UserError for another architecture, as the rest of a sentence.
    """
    found = _module_of(network, "G_ema", "G")
    source = found.tensors() if found else {}
    if any(name.startswith("synthesis.L0_") for name in source):
        raise UserError("a StyleGAN3 generator; expected StyleGAN2")
    if not any(name.startswith("synthesis.b4.") for name in source):
        return {}
    if any(name.startswith("mapping.embed.") for name in source):
        raise UserError("a class-conditional StyleGAN2 generator; expected an unconditional one")
    return {key: value.float() for name, tensor in source.items() for key, value in _rename(name, tensor)}


def discriminator(network: Any) -> "dict[str, torch.Tensor]":
    """The discriminator `D` of an unpickled file in rosinality's layout; nothing where there is none."""
    found = _module_of(network, "D")
    source = found.tensors() if found else {}
    if "b4.out.weight" not in source:
        return {}
    top = max(int(match[1]) for name in source if (match := _CRITIC.fullmatch(name)))
    return {
        key: value.float() for name, tensor in source.items() for key, value in _rename_discriminator(name, tensor, top)
    }


_BLOCK = re.compile(r"synthesis\.b(\d+)\.(?:(conv0|conv1|torgb)\.)?(.+)")
_MAPPING = re.compile(r"mapping\.fc(\d+)\.(weight|bias)")
_STYLED = {"affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}


def _rename(name: str, tensor: "torch.Tensor") -> "Iterator[tuple[str, torch.Tensor]]":
    """The published names of one of NVIDIA's tensors; resampling filters become the kernels that the layout holds."""
    if name == "mapping.w_avg":
        yield "latent_avg", tensor
    elif match := _MAPPING.fullmatch(name):
        yield f"style.{int(match[1]) + 1}.{match[2]}", tensor
    elif match := _BLOCK.fullmatch(name):
        octave, layer, leaf = int(match[1]).bit_length() - 3, match[2], match[3]
        if leaf == "const":
            yield "input.input", tensor[None]
        elif layer == "torgb":
            place = f"to_rgbs.{octave - 1}" if octave else "to_rgb1"
            if leaf == "bias":
                yield f"{place}.bias", tensor.reshape(1, -1, 1, 1)
            else:
                yield f"{place}.{_STYLED.get(leaf, f'conv.{leaf}')}", tensor[None] if leaf == "weight" else tensor
        elif layer:
            yield from _styled(octave, layer, leaf, tensor)
        elif leaf == "resample_filter":
            if octave:
                yield f"to_rgbs.{octave - 1}.upsample.kernel", tensor * 4
        else:
            yield name, tensor  # unknown: the structure's check names it
    else:
        yield name, tensor


def _styled(octave: int, layer: str, leaf: str, tensor: "torch.Tensor") -> "Iterator[tuple[str, torch.Tensor]]":
    index = 2 * octave - (2 if layer == "conv0" else 1)
    place = f"convs.{index}" if octave else "conv1"
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
        yield f"noises.noise_{index + 1 if octave else 0}", tensor[None, None]
    else:
        yield f"{place}.{_STYLED.get(leaf, leaf)}", tensor


_CRITIC = re.compile(r"b(\d+)\.(?:(fromrgb|conv0|conv1|skip|conv|fc|out)\.)?(.+)")
_LAST = {"conv": ("final_conv.0", "final_conv.1"), "fc": ("final_linear.0",) * 2, "out": ("final_linear.1",) * 2}


def _rename_discriminator(name: str, tensor: "torch.Tensor", top: int) -> "Iterator[tuple[str, torch.Tensor]]":
    """The published names of one of the discriminator's tensors, whose largest pictures are `top` px."""
    match = _CRITIC.fullmatch(name)
    layer, leaf = (match[2], match[3]) if match else (None, "")
    index = 1 + int(math.log2(top / int(match[1]))) if match else 0
    halving = {"conv1": f"convs.{index}.conv2", "skip": f"convs.{index}.skip"}.get(layer or "")
    if leaf == "resample_filter":
        if halving:  # the others have one as well and never use it
            yield f"{halving}.0.kernel", tensor
    elif halving and leaf in ("weight", "bias"):
        yield f"{halving}.{1 if leaf == 'weight' else 2}.{leaf}", tensor
    elif layer and leaf in ("weight", "bias"):
        places = _LAST.get(layer) or tuple(f"convs.{0 if layer == 'fromrgb' else f'{index}.conv1'}.{i}" for i in (0, 1))
        yield f"{places[leaf == 'bias']}.{leaf}", tensor
    else:
        yield name, tensor  # unknown: the structure's check names it
