"""Runs BiSeNetV2 from its published graph, operation by operation: the reference for `models.parsing.teacher`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GRAPH = "graph.json"
INPUT = "input_tensor"
CELLS = "BiseNetV2/logits/1x1_conv_block/Conv2D"
LOGITS = "BiseNetV2/logits/segmentation_head_logits"


class BiSeNetV2:
    """Interprets the converted tensorflow.js graph.

    `tensors` holds each constant under the name of its node, in TensorFlow's layout (HWIO kernels), and the topology as
    UTF-8 JSON in the uint8 tensor `graph.json`.
    Raises: ValueError when a constant is missing, or an operation is not implemented.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        if GRAPH not in tensors:
            raise ValueError(
                f"BiSeNetV2 tensors lack '{GRAPH}'; found {len(tensors)} others: convert the weights again"
            )
        nodes = json.loads(bytes(tensors[GRAPH].cpu().numpy()).decode())["node"]
        self.nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in nodes}
        self.constants: dict[str, Tensor] = {}
        for name, node in self.nodes.items():
            operation = node["op"]
            if operation == "Const":
                if name not in tensors:
                    raise ValueError(f"BiSeNetV2 tensors lack the constant '{name}': convert the weights again")
                self.constants[name] = tensors[name].to(device)
            elif operation not in OPERATIONS and operation != "Placeholder":
                raise ValueError(f"BiSeNetV2 graph has operation '{operation}' at '{name}', which is not implemented")

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Class scores of the 19 CelebAMask labels: RGB [N, 3, H, W] in [-1, 1] -> [N, 19, H, W]."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"BiSeNetV2 expects [N, 3, H, W], got {tuple(images.shape)}")
        return self.value(LOGITS, {INPUT: images})

    def value(self, name: str, known: dict[str, Tensor]) -> Tensor:
        """The output of the node `name`; `known` holds the nodes that are computed, and the new ones are added."""
        if name in self.constants:
            return self.constants[name]
        if name not in known:
            node = self.nodes[name]
            inputs = [self.value(source, known) for source in node.get("input", [])]
            known[name] = OPERATIONS[node["op"]](node.get("attr", {}), *inputs)
        return known[name]


def _integers(attributes: Mapping[str, Any], key: str) -> list[int]:
    return [int(i) for i in attributes[key]["list"]["i"]]


def _pad_same(x: Tensor, kernel: tuple[int, int], stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's SAME padding: an odd pixel goes after the image, not before it."""
    pads: list[int] = []
    for length, window in ((x.shape[3], kernel[1]), (x.shape[2], kernel[0])):
        total = max((-(-length // stride) - 1) * stride + window - length, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def _convolve(attributes: Mapping[str, Any], x: Tensor, kernel: Tensor, *rest: Tensor) -> Tensor:
    fused = [base64.b64decode(s).decode() for s in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
    stride = _integers(attributes, "strides")[1]
    x = _pad_same(x, (kernel.shape[0], kernel.shape[1]), stride)
    x = F.conv2d(x, kernel.permute(3, 2, 0, 1), rest[0] if "BiasAdd" in fused else None, stride)
    return F.relu(x) if "Relu" in fused else x


def _convolve_depthwise(attributes: Mapping[str, Any], x: Tensor, kernel: Tensor, *rest: Tensor) -> Tensor:
    fused = [base64.b64decode(s).decode() for s in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
    height, width, channels, multiplier = kernel.shape
    weight = kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    stride = _integers(attributes, "strides")[1]
    x = _pad_same(x, (height, width), stride)
    x = F.conv2d(x, weight, rest[0] if "BiasAdd" in fused else None, stride, groups=channels)
    return F.relu(x) if "Relu" in fused else x


def _pool_max(attributes: Mapping[str, Any], x: Tensor) -> Tensor:
    window, stride = _integers(attributes, "ksize")[1], _integers(attributes, "strides")[1]
    return F.max_pool2d(_pad_same(x, (window, window), stride, -torch.inf), window, stride)


def _pool_average(attributes: Mapping[str, Any], x: Tensor) -> Tensor:
    window, stride = _integers(attributes, "ksize")[1], _integers(attributes, "strides")[1]
    inside = _pad_same(torch.ones_like(x[:1, :1]), (window, window), stride)
    return F.avg_pool2d(_pad_same(x, (window, window), stride), window, stride) / F.avg_pool2d(inside, window, stride)


def resize(attributes: Mapping[str, Any], x: Tensor, size: Tensor) -> Tensor:
    """TensorFlow's legacy bilinear resize of [N, C, H, W]: unlike in torch, sample i lies at i * in / out."""
    if attributes.get("align_corners", {}).get("b") or attributes.get("half_pixel_centers", {}).get("b"):
        raise ValueError("BiSeNetV2 graph resizes with aligned corners or half pixels, which is not implemented")
    for axis, out in zip((2, 3), size.flatten().tolist(), strict=True):
        length = x.shape[axis]
        where = torch.arange(out, device=x.device, dtype=torch.float32) * (length / out)
        low = where.floor().long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        part = (where - low).view((-1, 1) if axis == 2 else (-1,))
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
    return x


def _slice(attributes: Mapping[str, Any], x: Tensor, begin: Tensor, end: Tensor, step: Tensor) -> Tensor:
    part = x[int(begin) : int(end) : int(step)]
    return part[0] if int(attributes["shrink_axis_mask"]["i"]) else part


def _shape(attributes: Mapping[str, Any], x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    return torch.tensor([n, height, width, channels], dtype=torch.int32)


def _mean(attributes: Mapping[str, Any], x: Tensor, axes: Tensor) -> Tensor:
    nchw = [(0, 2, 3, 1)[axis] for axis in axes.flatten().tolist()]
    return x.mean(nchw, keepdim=bool(attributes["keep_dims"]["b"]))


def _per_channel(x: Tensor, other: Tensor) -> Tensor:
    """A constant for NHWC broadcasting, reshaped to broadcast over NCHW."""
    if x.ndim == 4 and other.ndim in (1, 4) and other.shape[-1] == x.shape[1] and other.numel() == x.shape[1]:
        return other.reshape(1, -1, 1, 1)
    return other


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "_FusedConv2D": _convolve,
    "Conv2D": _convolve,
    "FusedDepthwiseConv2dNative": _convolve_depthwise,
    "Add": lambda attributes, a, b: a + _per_channel(a, b),
    "Mul": lambda attributes, a, b: a * _per_channel(a, b),
    "Relu": lambda attributes, x: F.relu(x),
    "Sigmoid": lambda attributes, x: torch.sigmoid(x),
    "MaxPool": _pool_max,
    "AvgPool": _pool_average,
    "Mean": _mean,
    "ConcatV2": lambda attributes, *values: torch.cat(values[:-1], 1),
    "ResizeBilinear": resize,
    "Shape": _shape,
    "StridedSlice": _slice,
    "Pack": lambda attributes, *values: torch.stack(values),
    "Softmax": lambda attributes, x: x.softmax(1),
    "ArgMax": lambda attributes, x, axis: x.argmax(1),
    "Squeeze": lambda attributes, x: x,
}
