"""The first layers of InceptionV3, whose features SIFID compares: FID's, or torchvision's as in SinGAN."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

# inputs, outputs, kernel, stride, padding of Conv2d_1a, 2a, 2b, 3b, 4a; a max-pool comes between 2b and 3b
LAYERS = ((3, 32, 3, 2, 0), (32, 32, 3, 1, 0), (32, 64, 3, 1, 1), (64, 80, 1, 1, 0), (80, 192, 3, 1, 0))
BLOCKS: Mapping[int, int] = {64: 3, 192: 5}  # channels -> number of layers
SIFID_LAYERS = {192: "Conv2d_4a", 64: "Conv2d_2b"}  # channels -> last layer; SinGAN's script compares the first
NORM = ("weight", "bias", "running_mean", "running_var")
PUBLISHED = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")


class InceptionStem(nn.Module):
    """FID's Inception up to its 192-channel block, batch norm folded in, frozen.

    `tensors` holds `conv.{i}.weight` and `conv.{i}.bias`; None leaves random weights, for tests.
    Raises: ValueError naming the tensor that is missing or has another shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.imagenet = False  # torchvision's network, which reads [-1, 1] as it is
        self.conv = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in LAYERS)
        if tensors is not None:
            for key, parameter in self.state_dict().items():
                tensor = tensors.get(key)
                if tensor is None or tensor.shape != parameter.shape:
                    got = "nothing" if tensor is None else list(tensor.shape)
                    raise ValueError(f"Inception: {key} has to be {list(parameter.shape)}, got {got}")
                parameter.copy_(tensor)
        self.requires_grad_(False).eval()

    @classmethod
    def load_imagenet(cls, tensors: Mapping[str, Tensor]) -> "InceptionStem":
        """torchvision's ImageNet network from its published state dict. Raises: ValueError as the class."""
        folded: dict[str, Tensor] = {}
        for i, name in enumerate(PUBLISHED):
            leaves = [tensors.get(f"{name}.{leaf}") for leaf in ("conv.weight", *(f"bn.{leaf}" for leaf in NORM))]
            if any(leaf is None for leaf in leaves):
                raise ValueError(f"not torchvision's Inception: {name} is incomplete")
            kernel, scale, shift, mean, variance = (leaf.float() for leaf in leaves if leaf is not None)
            scale = scale * (variance + 1e-3).rsqrt()
            folded |= {f"conv.{i}.weight": kernel * scale.view(-1, 1, 1, 1), f"conv.{i}.bias": shift - mean * scale}
        net = cls(folded)
        net.imagenet = True
        return net

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Features by channel count of images [N, 3, H, W] in [-1, 1]: {64: [N, 64, h, w], 192: [N, 192, h, w]}.

        FID's network reads (x - 128) / 128 of 0..255; at 256 px the maps are 125 and 60 px wide.
        """
        x = images if self.imagenet else (images * 127.5 - 0.5) / 128
        out: dict[int, Tensor] = {}
        for i, conv in enumerate(self.conv):
            if i == 3:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            for channels, layers in BLOCKS.items():
                if layers == i + 1:
                    out[channels] = x
        return out
