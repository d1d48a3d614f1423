"""The two ImageNet trunks that LPIPS compares images with; VGG16 is also ALADIN's backbone.

Both read float32 RGB in [-1, 1] and normalise it themselves.
Weights come as `trunk.{i}.weight` [O, I, H, W] and `trunk.{i}.bias`, where i counts convolutions from 0.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ImageNet's mean and std of images in [0, 1], converted to [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Conv:
    """One convolution of a trunk: its shape, what happens before it, and whether LPIPS taps its activation."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


def _vgg16() -> tuple[Conv, ...]:
    convs: list[Conv] = []
    channels = 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for i in range(depth):
            convs.append(Conv(channels, width, pool=2 if block and i == 0 else 0, tap=i == depth - 1))
            channels = width
    return tuple(convs)


LAYOUTS: Mapping[str, tuple[Conv, ...]] = {
    "alex": (
        Conv(3, 64, kernel=11, stride=4, padding=2, tap=True),
        Conv(64, 192, kernel=5, padding=2, pool=3, tap=True),
        Conv(192, 384, pool=3, tap=True),
        Conv(384, 256, tap=True),
        Conv(256, 256, tap=True),
    ),
    "vgg16": _vgg16(),
}


class Trunk(nn.Module):
    """A convolutional trunk that returns its LPIPS features, the activations before each pooling.

    `tensors` holds `trunk.{i}.weight` and `.bias`; None leaves random weights, for tests. `depth` keeps only the first
    convolutions.
    Raises: ValueError naming the tensor that is missing or has another shape.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        net: str,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        normalise: bool = True,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        if net not in LAYOUTS:
            raise ValueError(f"trunk {net!r} is unknown, expected one of {', '.join(LAYOUTS)}")
        self.net, self.layout, self.normalise = net, LAYOUTS[net][:depth], normalise
        with nullcontext() if tensors is None else torch.device("meta"):
            convs = (nn.Conv2d(c.inputs, c.outputs, c.kernel, c.stride, c.padding) for c in self.layout)
            self.convs = nn.ModuleList(convs)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        if tensors is not None:
            self.load(tensors)
        self.requires_grad_(False).eval()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors `trunk.{i}.weight` and `trunk.{i}.bias` as this network's."""
        state = {}
        for key, parameter in self.state_dict().items():
            _, index, kind = key.split(".")
            name = f"trunk.{index}.{kind}"
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != parameter.shape:
                got = "nothing" if tensor is None else list(tensor.shape)
                raise ValueError(f"{self.net} trunk: {name} has to be {list(parameter.shape)}, got {got}")
            state[key] = tensor.to(parameter.dtype)
        self.load_state_dict(state, assign=True)

    def layers(self, x: Tensor, *, slope: float = 0.0) -> Iterator[Tensor]:
        """Yield the activation of every convolution in order, for x [N, 3, H, W] in [-1, 1].

        `slope` is the negative slope of the ReLU: 0 for the ImageNet weights, 0.01 for the published ALADIN.
        """
        if self.normalise:
            x = (x - self.shift) / self.scale
        for conv, spec in zip(self.convs, self.layout, strict=True):
            if spec.pool:
                x = F.max_pool2d(x, spec.pool, 2)
            x = conv(x)
            x = F.leaky_relu_(x, slope) if slope else F.relu_(x)
            yield x

    def forward(self, x: Tensor) -> list[Tensor]:
        """The five LPIPS features of x [N, 3, H, W] in [-1, 1]."""
        return [y for y, spec in zip(self.layers(x), self.layout, strict=True) if spec.tap]
