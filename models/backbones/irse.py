"""The IR-SE50 face backbone of ArcFace, e4e and HyperStyle's W-encoder, in its published layout."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNITS = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels and units per stage; the first unit halves the sides


class SqueezeExcite(nn.Module):
    """Channel gates from the mean of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate x [N, C, H, W]."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Unit(nn.Module):
    """Batch norm, 3x3, PReLU, 3x3 (strided), batch norm, gates; the shortcut takes every stride-th position."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Module | None = None
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, in, H, W] to [N, out, H / stride, W / stride]."""
        short = x[..., :: self.stride, :: self.stride] if self.shortcut_layer is None else self.shortcut_layer(x)
        return self.res_layer(x) + short


class Backbone(nn.Module):
    """IR-SE50 on images [N, 3, 256, 256] in [-1, 1]: 512 channels at 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = UNITS[0][0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs), nn.PReLU(inputs)
        )
        units = []
        for width, count in UNITS:
            for i in range(count):
                units.append(Unit(inputs, width, 2 if i == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*units)

    def features(self, x: Tensor, taps: Sequence[int] = (23,)) -> list[Tensor]:
        """The features after the units `taps`, ascending. Raises: ValueError for another size of image."""
        if x.shape[1:] != (3, 256, 256):
            raise ValueError(f"the encoder reads images [N, 3, 256, 256], got {list(x.shape)}")
        features, x = [], self.input_layer(x)
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in taps:
                features.append(x)
        return features
