"""Reads MobileStyleGAN's tensors from its OpenVINO IR files by following the graph once.

The exporter folded scale and demodulation into anonymous constants (`Mul_106_copy`, `1560`). So the place of a tensor
in the graph tells what it is; its name does not. Only constants are read; no operation of the graph is run.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np

_DTYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}


@dataclass(frozen=True)
class _Node:
    kind: str
    name: str
    inputs: tuple[str, ...]
    value: np.ndarray | None


def _graph(xml: bytes, blob: bytes) -> dict[str, _Node]:
    """The graph as nodes by id; constants have their values."""
    root = ElementTree.fromstring(xml)
    sources: dict[str, dict[int, str]] = {}
    for edge in root.iter("edge"):
        sources.setdefault(edge.attrib["to-layer"], {})[int(edge.attrib["to-port"])] = edge.attrib["from-layer"]
    nodes = {}
    for layer in root.iter("layer"):
        data, value = layer.find("data"), None
        if layer.attrib["type"] == "Const" and data is not None:
            start, size = int(data.attrib["offset"]), int(data.attrib["size"])
            shape = [int(n) for n in data.attrib["shape"].split(",") if n.strip()]
            dtype = _DTYPES[data.attrib["element_type"]]
            value = np.frombuffer(blob[start : start + size], dtype).reshape(shape)
        inputs = tuple(v for _, v in sorted(sources.get(layer.attrib["id"], {}).items()))
        nodes[layer.attrib["id"]] = _Node(layer.attrib["type"], layer.attrib["name"], inputs, value)
    return nodes


def convert(
    mapping_xml: bytes, mapping_bin: bytes, synthesis_xml: bytes, synthesis_bin: bytes
) -> dict[str, np.ndarray]:
    """Convert both IR pairs to float32 arrays by name.

    Returns `mapping.{0..7}.{weight,bias}` (the activation's gain folded in), and for the synthesis
    `<layer>.{modulation.weight, modulation.bias, depthwise, pointwise | weight, noise, bias}` with the modulation's
    scale folded in.
    Raises: ValueError when the graph is not the published one.
    """
    tensors = _mapping(_graph(mapping_xml, mapping_bin)) | _synthesis(_graph(synthesis_xml, synthesis_bin))
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()}


def _mapping(nodes: dict[str, _Node]) -> dict[str, np.ndarray]:
    weights = [n.value for n in nodes.values() if n.value is not None and n.value.shape == (512, 512)]
    biases = [n.value for n in nodes.values() if n.value is not None and n.value.shape == (512,)]
    gains = []
    for node in nodes.values():  # LeakyReLU(x) * gain; LeakyReLU(c x) = c LeakyReLU(x) for c > 0, so it folds
        parents = [nodes[i] for i in node.inputs]
        if node.kind == "Multiply" and parents[0].kind == "PReLU" and parents[1].value is not None:
            gains.append(float(parents[1].value.reshape(-1)[0]))
    if not len(weights) == len(biases) == len(gains) == 8:
        counts = f"{len(weights)} weights, {len(biases)} biases, {len(gains)} gains"
        raise ValueError(f"mapping graph has {counts}; expected 8")
    out = {}
    for i, (weight, bias, gain) in enumerate(zip(weights, biases, gains, strict=True)):
        out[f"mapping.{i}.weight"], out[f"mapping.{i}.bias"] = weight * gain, bias * gain
    return out


def _synthesis(nodes: dict[str, _Node]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for node in nodes.values():
        if node.value is not None and node.name.startswith("m."):
            out[_tidy(node.name)] = node.value
    scales: dict[str, float] = {}
    for node in nodes.values():
        parents = [nodes[i] for i in node.inputs]
        value = parents[1].value if len(parents) == 2 else None
        if node.kind == "Multiply" and value is not None and parents[0].kind == "Reshape":
            scales[_modulation_of(nodes, parents[0])] = float(value.reshape(-1)[0])
        if node.kind == "Convolution":
            layer = _layer_of(nodes, node)
            if value is None:
                raise ValueError(f"convolution {node.name} has no constant kernel")
            out[f"{layer}.pointwise" if value.shape[2] == 1 and layer != "to_img" else f"{layer}.weight"] = value
        if node.kind == "Add" and parents[0].kind == "Convolution" and value is not None and value.shape[:2] == (1, 1):
            out[f"{_layer_of(nodes, parents[0])}.noise"] = value
    for layer, scale in scales.items():
        out[f"{layer}.modulation.weight"] = out[f"{layer}.modulation.weight"] * scale
        out[f"{layer}.modulation.bias"] = out[f"{layer}.modulation.bias"] * scale
    if len(out) != 1 + 23 * 2 + 16 + 14 + 15 + 16:
        raise ValueError(f"synthesis graph gave {len(out)} tensors; expected 108")
    return out


def _tidy(name: str) -> str:
    """Map an exported name to ours: `m.layers.0.conv1.conv.weight_dw` -> `layers.0.conv1.depthwise`."""
    name = name.removeprefix("m.").replace("layers.6.to_img", "to_img").replace(".conv.", ".")
    return {"input.input": "constant"}.get(name, name.replace("weight_dw", "depthwise"))


def _modulation_of(nodes: dict[str, _Node], reshape: _Node) -> str:
    gemm = nodes[reshape.inputs[0]]
    bias = nodes[gemm.inputs[1]]
    return _tidy(bias.name).removesuffix(".modulation.bias")


def _layer_of(nodes: dict[str, _Node], convolution: _Node) -> str:
    """The layer of a 1x1 or 3x3 convolution, told by the depthwise kernel before it."""
    before = nodes[convolution.inputs[0]]
    if before.kind == "GroupConvolution":
        return _tidy(nodes[before.inputs[1]].name).removesuffix(".depthwise")
    kernel = nodes[convolution.inputs[1]].value
    return "conv1" if kernel is not None and kernel.shape[2] == 3 else "to_img"
