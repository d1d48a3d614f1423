"""ALADIN (Ruta et al. 2021): an image's style as 256 numbers, the paper's conditioning and its style space.

Mean and std per channel of every VGG16 layer (2 x 4224 numbers) pass through a small projection head and are normalised
to unit length. The published network has its own VGG weights; the portable one uses LPIPS' ImageNet trunk.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.trunks import LAYOUTS, Trunk
from models.regions import CODE_SIZE
from models.state_dicts import build, check, fill, width

STATISTICS = 2 * sum(conv.outputs for conv in LAYOUTS["vgg16"])
CONV = "enc_style.model.conv_"
UNUSED = ("enc_content.", "dec.")  # the published file also holds what it was trained with
SMALLEST = 32  # below this the last layers hold a single pixel, which has no std


def statistics(trunk: Trunk, x: Tensor, *, slope: float = 0.0) -> Tensor:
    """Per layer the means of all channels, then their unbiased stds: [N, 8448], of x [N, 3, H, W] in [-1, 1].

    A flat channel's std is 1e-6, not 0. Raises: ValueError when a side is under 32 px.
    """
    if min(x.shape[-2:]) < SMALLEST:
        raise ValueError(f"style statistics need sides of at least {SMALLEST} px, got {list(x.shape[-2:])}")
    parts: list[Tensor] = []
    for y in trunk.layers(x, slope=slope):
        var, mean = torch.var_mean(y, (2, 3))
        parts += [mean, var.clamp_min(1e-12).sqrt()]
    return torch.cat(parts, 1)


class ProjectionHead(nn.Module):
    """Leaky ReLU, fc1, leaky ReLU, fc2: statistics [N, 8448] to embeddings [N, 256] of any length."""

    def __init__(self, hidden: int = 1024, inputs: int = STATISTICS, outputs: int = CODE_SIZE) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Project statistics x [N, inputs] to [N, outputs]."""
        return self.fc2(F.leaky_relu(self.fc1(F.leaky_relu(x))))


class Aladin(nn.Module):
    """Images to unit-length style codes, frozen.

    `tensors` holds `proj_head.fc{1,2}.{weight,bias}`; the trunk comes from another file. None for both leaves random
    weights, for tests. `size` is the length in px to which the shorter side of images is resized for the trunk.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor] | None = None, *, trunk: Trunk | None = None, size: int = 256
    ) -> None:
        super().__init__()
        self.size, self.slope = size, 0.0
        self.trunk = trunk or Trunk("vgg16")
        if tensors is None:
            self.head = ProjectionHead(512)
        else:
            head = {k.removeprefix("proj_head."): v for k, v in tensors.items() if k.startswith("proj_head.")}
            if "fc1.weight" not in head:
                raise ValueError("ALADIN: proj_head.fc1.weight is missing; expected the projection head's four tensors")
            self.head = fill(build(ProjectionHead, len(head["fc1.weight"])), head, "ALADIN's projection head")
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], size: int = 256) -> "Aladin":
        """Build the published network with its own trunk from keys `enc_style.model.conv_{i}.*` and `proj_head.*`.

        The file's content encoder and decoder are not used. Raises: ValueError naming tensors that are
        missing, unexpected or of another shape.
        """
        used = {name: t for name, t in tensors.items() if not name.startswith(UNUSED)}
        what = "an ALADIN on VGG16"
        hidden = width(used, "proj_head.fc1.bias", what)
        check(_published_shapes(hidden), used, what)
        trunk = Trunk("vgg16", {name.replace(CONV, "trunk."): t for name, t in used.items()}, normalise=False)
        net = cls({name: t for name, t in used.items() if name.startswith("proj_head.")}, trunk=trunk, size=size)
        net.slope = 0.01
        return net

    def statistics(self, images: Tensor, size: int | None = None) -> Tensor:
        """Statistics [N, 8448] of images [N, 3, H, W] in [-1, 1], shorter side resized to `size` or `self.size`."""
        side, (height, width) = size or self.size, images.shape[-2:]
        x = images.clamp(-1, 1)
        if min(height, width) != side:
            shorter = min(height, width)
            shape = side * height // shorter, side * width // shorter
            x = F.interpolate(x, shape, mode="bilinear", antialias=True)
        return statistics(self.trunk, x.contiguous(memory_format=torch.channels_last), slope=self.slope)

    def forward(self, images: Tensor, size: int | None = None) -> Tensor:
        """Codes [N, 256] of length 1 of images [N, 3, H, W] in [-1, 1], resized to `size` or `self.size`."""
        return F.normalize(self.head(self.statistics(images, size)))


def _published_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, conv in enumerate(LAYOUTS["vgg16"]):
        shapes[f"{CONV}{i}.weight"] = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
        shapes[f"{CONV}{i}.bias"] = (conv.outputs,)
    for name, outputs, inputs in (("fc1", hidden, STATISTICS), ("fc2", CODE_SIZE, hidden)):
        shapes[f"proj_head.{name}.weight"] = (outputs, inputs)
        shapes[f"proj_head.{name}.bias"] = (outputs,)
    return shapes
