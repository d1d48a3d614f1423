"""The first layers of the FID InceptionV3, whose features SIFID compares."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

# inputs, outputs, kernel, stride, padding of Conv2d_1a, 2a, 2b, 3b, 4a; a max-pool comes between 2b and 3b
LAYERS = ((3, 32, 3, 2, 0), (32, 32, 3, 1, 0), (32, 64, 3, 1, 1), (64, 80, 1, 1, 0), (80, 192, 3, 1, 0))
BLOCKS: Mapping[int, int] = {64: 3, 192: 5}  # channels -> number of layers


class InceptionStem(nn.Module):
    """Inception up to its 192-channel block, batch norm folded in, frozen.

    `tensors` holds `conv.{i}.weight` and `conv.{i}.bias`; None leaves random weights, for tests.
    Raises: ValueError naming the tensor that is missing or has another shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in LAYERS)
        if tensors is not None:
            for key, parameter in self.state_dict().items():
                tensor = tensors.get(key)
                if tensor is None or tensor.shape != parameter.shape:
                    got = "nothing" if tensor is None else list(tensor.shape)
                    raise ValueError(f"Inception: {key} has to be {list(parameter.shape)}, got {got}")
                parameter.copy_(tensor)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Features by channel count of images [N, 3, H, W] in [-1, 1]: {64: [N, 64, h, w], 192: [N, 192, h, w]}.

        The network's own range is (x - 128) / 128 of 0..255; at 256 px the maps are 125 and 60 px wide.
        """
        x = (images * 127.5 - 0.5) / 128
        out: dict[int, Tensor] = {}
        for i, conv in enumerate(self.conv):
            if i == 3:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            for channels, layers in BLOCKS.items():
                if layers == i + 1:
                    out[channels] = x
        return out
