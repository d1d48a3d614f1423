"""Reads a StyleGAN2 generator out of NVIDIA's network pickles, whose own way of loading runs the code inside them.

Every module there is pickled as its class's source and its state. The state is kept, the source never looked at, and
what a pickle may ask for is listed; the tensors are then renamed to rosinality's layout.
"""

import collections
import io
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import Fault

if TYPE_CHECKING:
    import torch

OLD = "dnnlib.tflib.network"
REFUSED = "which weights never need; nothing in it was run or loaded"


class Module:
    """What is left of a pickled module: its class's name and its attributes."""

    def __init__(self, name: str, state: Mapping[str, Any]) -> None:
        self.name, self.state = name, state

    def tensors(self, prefix: str = "") -> "Iterator[tuple[str, torch.Tensor]]":
        """Parameters and buffers by their dotted names, as a state dict has them."""
        for kind in ("_parameters", "_buffers"):
            for key, tensor in self.state.get(kind, {}).items():
                if tensor is not None:
                    yield prefix + key, tensor
        for key, module in self.state.get("_modules", {}).items():
            if isinstance(module, Module):
                yield from module.tensors(f"{prefix}{key}.")


class EasyDict(dict):
    """NVIDIA's dictionary, as a plain one."""


def _module(meta: Mapping[str, Any]) -> Module:
    return Module(str(meta.get("class_name", "?")), dict(meta.get("state") or {}))


def _parameter(data: "torch.Tensor", *_: Any) -> "torch.Tensor":
    return data


def _storage(data: bytes) -> Any:
    import torch

    # the storage's own pickle, read with torch's allow-list
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


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
            raise Fault("a TensorFlow network; expected stylegan2-ada-pytorch's file of the same name")
        wanted = (module.replace("__builtin__", "builtins"), name)
        if wanted not in allowed:
            raise Fault(f"a pickle that asks for {module}.{name}, {REFUSED}")
        return allowed[wanted]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def load(path: Path) -> Any:
    """The pickle's object. Raises: Fault telling what the file is instead, as the rest of a sentence."""
    try:
        with path.open("rb") as file:
            return Unpickler(file).load()
    except Fault:
        raise
    except Exception as error:  # a damaged pickle fails in any way at all
        raise Fault(f"a truncated or damaged pickle ({type(error).__name__}: {error}); fetch it again") from error


def generator(network: Any) -> "dict[str, torch.Tensor]":
    """The averaged generator (`G_ema`) of an unpickled file in rosinality's layout, with `latent_avg`.

    Raises: Fault for what is no StyleGAN2 generator of the published architecture, as the rest of a sentence.
    """
    found = network.get("G_ema") if isinstance(network, Mapping) else None
    if not isinstance(found, Module):
        raise Fault("a pickle without the module G_ema; expected a network of stylegan2-ada-pytorch")
    source = dict(found.tensors())
    if any(name.startswith("synthesis.L0_") for name in source):
        raise Fault("a StyleGAN3 generator; expected StyleGAN2")
    if any(name.startswith("mapping.embed.") for name in source):
        raise Fault("a class-conditional StyleGAN2 generator; expected an unconditional one")
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in source.items():
        for key, value in _rename(name, tensor):
            renamed[key] = value.float()
    return renamed


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
