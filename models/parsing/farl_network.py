"""FaRL's face parsing network (Zheng et al. 2022): ViT-B/16 at 448 px, four of its maps, and a UPerNet head.

The modules carry the published file's own names (`backbone.*`, `head.*`), so that loading is strict. `visual.proj` and
`visual.ln_post` are in the file but do not affect the result. All sizes are those of the two published networks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.state_dicts import build, fill, width

SIDE, PATCH = 448, 16
WIDTH, DEPTH, HEADS = 768, 12, 12
TAPS = (3, 5, 7, 11)  # blocks, counted from 0, whose outputs the head reads
POOLS = (1, 2, 3, 6)  # sides of the pooled maps
OUTPUT = (512, 512)  # px, of the published configuration; a file may hold another
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WHAT = "a FaRL face parser"


class MLP(nn.Module):
    """A block's two linear maps, with CLIP's x * sigmoid(1.702 x) between them."""

    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [N, T, 768]."""
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))


class Attention(nn.Module):
    """Self-attention over [N, T, 768] with one packed map for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over tokens x [N, T, 768]."""
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, 2)
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in packed)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: [N, T, 768] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.ln_1 = Attention(), nn.LayerNorm(WIDTH)
        self.mlp, self.ln_2 = MLP(), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [N, T, 768]."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """Normalised images [N, 3, 448, 448] -> maps [N, 768, 28, 28] of the blocks in TAPS, no class token."""

    def __init__(self) -> None:
        super().__init__()
        cells = SIDE // PATCH
        self.class_embedding = nn.Parameter(torch.empty(WIDTH))
        self.positional_embedding = nn.Parameter(torch.empty(cells * cells + 1, WIDTH))
        self.proj = nn.Parameter(torch.empty(WIDTH, 512))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(Block() for _ in range(DEPTH)))})
        self.ln_post = nn.LayerNorm(WIDTH)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps [N, 768, 28, 28] of normalised images [N, 3, 448, 448]."""
        grid = self.conv1(images)
        x = torch.cat([self.class_embedding.expand(len(grid), 1, -1), grid.flatten(2).transpose(1, 2)], 1)
        x = self.ln_pre(x + self.positional_embedding)
        maps = []
        for number, block in enumerate(self.transformer["resblocks"].children()):
            x = block(x)
            if number in TAPS:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, grid.shape[-2:]))
        return maps


class Backbone(nn.Module):
    """RGB [N, 3, H, W] in [0, 1] -> maps [N, 768, s, s] with s = 112, 56, 28, 14."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image_mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(STD).view(1, 3, 1, 1))
        self.visual = VisionTransformer()
        larger = nn.Sequential(_doubled(), nn.BatchNorm2d(WIDTH), nn.GELU(), _doubled())
        self.fpns = nn.ModuleList([larger, _doubled(), nn.Identity(), nn.MaxPool2d(2, 2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Four maps [N, 768, s, s], largest first, of RGB images [N, 3, H, W] in [0, 1]."""
        maps = self.visual((_resized(images, SIDE) - self.image_mean) / self.image_std)
        return [net(x) for net, x in zip(self.fpns, maps, strict=True)]


class Convolution(nn.Module):
    """A convolution without bias, batch norm and ReLU; the size of the map stays."""

    def __init__(self, inputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, WIDTH, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, in, H, W] to [N, 768, H, W]."""
        return F.relu(self.bn(self.conv(x)))


class UPerHead(nn.Module):
    """Four maps, largest first, fused top-down: logits [N, classes, 112, 112]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(WIDTH, classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), Convolution(WIDTH, 1)) for side in POOLS
        )
        self.bottleneck = Convolution((1 + len(POOLS)) * WIDTH, 3)
        self.lateral_convs = nn.ModuleList(Convolution(WIDTH, 1) for _ in TAPS[1:])
        self.fpn_convs = nn.ModuleList(Convolution(WIDTH, 3) for _ in TAPS[1:])
        self.fpn_bottleneck = Convolution(len(TAPS) * WIDTH, 3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits [N, classes, 112, 112] of four maps [N, 768, s, s], largest first."""
        *larger, last = maps
        pooled = [_resized(net(last), last.shape[-1]) for net in self.psp_modules]
        levels = [net(x) for net, x in zip(self.lateral_convs, larger, strict=True)]
        levels.append(self.bottleneck(torch.cat([last, *pooled], 1)))
        for i in reversed(range(len(larger))):
            levels[i] = levels[i] + _resized(levels[i + 1], levels[i].shape[-1])
        levels[:-1] = [net(x) for net, x in zip(self.fpn_convs, levels[:-1], strict=True)]
        side = levels[0].shape[-1]
        return self.conv_seg(self.fpn_bottleneck(torch.cat([_resized(x, side) for x in levels], 1)))


class FaRL(nn.Module):
    """The whole network: RGB [N, 3, H, W] in [0, 1] -> logits [N, classes, *output], frozen; `load` fills it."""

    def __init__(self, classes: int, output: tuple[int, int] = OUTPUT) -> None:
        super().__init__()
        if [type(side) for side in output] != [int, int] or not all(1 <= side <= 4 * SIDE for side in output):
            raise ValueError(f"not {WHAT}: its output is {output} px; expected two sides of 1 to {4 * SIDE}")
        self.classes, self.output = classes, tuple(output)
        self.backbone, self.head = Backbone(), nn.ModuleDict({"head": UPerHead(classes)})

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], output: tuple[int, int] = OUTPUT) -> "FaRL":
        """Build the network from the published file's 239 tensors, with any number of classes.

        Raises: ValueError naming tensors that are missing, unexpected, of another shape or of another type.
        """
        net = build(cls, width(tensors, "head.head.conv_seg.weight", WHAT), output)
        expected = net.state_dict()
        for name, tensor in tensors.items():
            if name in expected and tensor.dtype != expected[name].dtype:
                raise ValueError(f"not {WHAT}: {name} is {_type(tensor)} instead of {_type(expected[name])}")
        return fill(net, tensors, WHAT)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes, *output] of images [N, 3, H, W] in [0, 1], which are first resized to 448 px."""
        return F.interpolate(
            self.head["head"](self.backbone(images)), self.output, mode="bilinear", align_corners=False
        )


def _doubled() -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)


def _resized(x: Tensor, side: int) -> Tensor:
    """Maps [N, C, side, side], bilinear and without antialiasing."""
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
