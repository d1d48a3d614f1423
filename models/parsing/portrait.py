"""The three-region portrait parser: BiSeNetV2 (Yu et al. 2021) whole, as plain modules, its 19 classes grouped.

A photo parser reads texture, which is exactly what a painting changes. This one starts as its photo teacher
(`models.parser_start`) and goes on (`stages.train_parser`) with that teacher's labels and the same faces after
stylisation, so that only shape helps it. Batch normalisation is folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.regions import MAP_SIZE, REGION_COUNT, UNKNOWN

WORKING_SIZE = 448
# CelebAMask's labels in the network's own order (not MaskGAN's): background, skin, 2 brows, 2 eyes, glasses, 2 ears,
# earring, nose, mouth, 2 lips, neck, necklace, cloth, hair, hat -> 0 hair, 1 face, 2 background.
REGION_OF_CLASS = (2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 2, 2, 0, 2)


class Convolution(nn.Module):
    """A convolution padded as TensorFlow does (the odd pixel after the image), so that the teacher's kernels fit."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
        self.pads = [kernel // 2, kernel // 2] * 2 if stride == 1 else [0, 1, 0, 1]

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.pad(x, self.pads))


class Stem(nn.Module):
    """3 channels -> 16 at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(3, 16, 3, 2)
        self.squeeze = Convolution(16, 8, 1)
        self.left = Convolution(8, 16, 3, 2)
        self.last = Convolution(32, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        half = F.relu(self.first(x))
        left = F.relu(self.left(F.relu(self.squeeze(half))))
        right = F.max_pool2d(half, 3, 2, ceil_mode=True)
        return F.relu(self.last(torch.cat([left, right], 1)))


class Gather(nn.Module):
    """A gather-and-expansion layer: a convolution, depthwise expansion by six, projection, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3)
        self.expand = Convolution(inputs, 6 * inputs, 3, stride, groups=inputs)
        self.deepen: nn.Module = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.deepen = Convolution(6 * inputs, 6 * inputs, 3, groups=6 * inputs)
            self.shortcut = nn.Sequential(
                Convolution(inputs, inputs, 3, 2, groups=inputs), Convolution(inputs, outputs, 1)
            )
        self.project = Convolution(6 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.project(self.deepen(self.expand(F.relu(self.first(x))))) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The context embedding: what the whole picture is about, added to every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.mix = Convolution(channels, channels, 1)
        self.last = Convolution(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True) * self.scale[:, None, None] + self.offset[:, None, None]
        return self.last(x + F.relu(self.mix(mean)))


class Semantic(nn.Sequential):
    """The light, deep branch: RGB -> what the picture is about, 128 channels at 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.stage3 = nn.Sequential(Gather(16, 32, 2), Gather(32, 32, 1))
        self.stage4 = nn.Sequential(Gather(32, 64, 2), Gather(64, 64, 1))
        self.stage5 = nn.Sequential(Gather(64, 128, 2), Gather(128, 128, 1), Gather(128, 128, 1), Gather(128, 128, 1))
        self.context = ContextEmbedding(128)


class Detail(nn.Sequential):
    """The wide, shallow branch: RGB -> where things end, 128 channels at 1/8. The last layer has no ReLU."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        widths = (3, 64, 64, 64, 64, 64, 128, 128, 128)
        for i, stride in enumerate((2, 1, 2, 1, 1, 2, 1, 1)):
            layers += [Convolution(widths[i], widths[i + 1], 3, stride), nn.ReLU()]
        super().__init__(*layers[:-1])


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch gates the other, near at 1/8 and far at 1/32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = _separable(channels)
        self.shrink = Convolution(channels, channels, 3, 2)
        self.semantic = _separable(channels)
        self.enlarge = Convolution(channels, channels, 3)
        self.last = Convolution(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        near = self.detail(detail) * enlarge(self.enlarge(semantic), 4).sigmoid()
        small = F.avg_pool2d(self.shrink(detail), 3, 2, ceil_mode=True)
        return F.relu(self.last(near + enlarge(small * self.semantic(semantic).sigmoid(), 4)))


class PortraitParser(nn.Module):
    """Both branches, their aggregation and the 19 classes' head, on pictures enlarged to `size` (a multiple of 32)."""

    spread: Tensor

    def __init__(self, size: int = WORKING_SIZE) -> None:
        super().__init__()
        self.size = size
        self.semantic, self.detail, self.aggregation = Semantic(), Detail(), Aggregation(128)
        last = Convolution(256, len(REGION_OF_CLASS), 1, bias=False)
        self.head = nn.Sequential(Convolution(128, 256, 3), nn.ReLU(), last)
        self.register_buffer("spread", _spread(size // 8, MAP_SIZE), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Region logits: RGB [N,3,256,256] in [-1,1] -> [N,3,256,256] (hair, face, background)."""
        if images.ndim != 4 or images.shape[1:] != (3, MAP_SIZE, MAP_SIZE):
            raise ValueError(f"parser expects [N,3,{MAP_SIZE},{MAP_SIZE}], got {tuple(images.shape)}")
        x = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        return self.spread @ by_region(self.classes(x)) @ self.spread.T

    def classes(self, x: Tensor) -> Tensor:
        """Scores of CelebAMask's 19 classes: [N,3,S,S], S a multiple of 32 -> [N,19,S/8,S/8]."""
        return self.head(self.aggregation(self.detail(x), self.semantic(x)))

    @torch.no_grad()
    def parse(self, images: Tensor) -> Tensor:
        """Region map: RGB [N,3,256,256] in [-1,1] -> uint8 [N,256,256] of 0 hair, 1 face, 2 background."""
        return self(images).argmax(1).to(torch.uint8)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> PortraitParser:
        """The parser in evaluation mode from its state dict (any float type); ValueError when tensors do not fit."""
        parser = cls()
        try:
            parser.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except RuntimeError as error:
            raise ValueError(
                f"parser weights do not fit PortraitParser: {str(error).splitlines()[1].strip()}"
            ) from error
        return parser.eval()


def by_region(classes: Tensor) -> Tensor:
    """Region logits whose softmax is the sum of the classes' by region: [N,19,H,W] -> [N,3,H,W]."""
    groups = [[i for i, own in enumerate(REGION_OF_CLASS) if own == region] for region in range(REGION_COUNT)]
    return torch.stack([classes[:, group].logsumexp(1) for group in groups], 1)


def enlarge(x: Tensor, times: int) -> Tensor:
    """TensorFlow's legacy bilinear resize by a whole number: sample i lies at i / times. [N,C,H,W] -> [N,C,tH,tW]."""
    size = [side * times + 1 for side in x.shape[2:]]
    repeated = F.pad(x, [0, 1, 0, 1], mode="replicate")
    return F.interpolate(repeated, size, mode="bilinear", align_corners=True)[..., :-1, :-1]


def _spread(cells: int, size: int) -> Tensor:
    """Matrix [size, cells] from `cells` samples, 8 pixels apart from pixel 0 of their picture, to `size` pixels."""
    where = ((torch.arange(size) + 0.5) * (8 * cells / size) - 0.5).clamp(min=0) / 8
    return (1 - (where.clamp(max=cells - 1)[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def _separable(channels: int) -> nn.Sequential:
    depthwise = Convolution(channels, channels, 3, groups=channels)
    return nn.Sequential(depthwise, Convolution(channels, channels, 1, bias=False))


def distillation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus soft Dice against the teacher: [N,3,H,W] logits and probabilities -> scalar.

    Dice weighs the three regions alike however few pixels one has: thin hair would otherwise count for nothing.
    """
    entropy = -(target * logits.log_softmax(1)).sum(1).mean()
    probability = logits.softmax(1)
    axes = (0, 2, 3)
    overlap = 2 * (probability * target).sum(axes) + 1
    dice = 1 - overlap / (probability.square().sum(axes) + target.square().sum(axes) + 1)
    return entropy + dice.mean()


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union of the regions present in a [R,R] confusion matrix (rows: truth, columns: found)."""
    hits = confusion.diagonal().double()
    union = (confusion.sum(0) + confusion.sum(1)).double() - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def confusion(truth: Tensor, found: Tensor) -> Tensor:
    """Pixel counts [3,3] by true (row) and found (column) region, pixels unknown in the truth left out."""
    known = truth.flatten() != UNKNOWN
    pairs = truth.flatten()[known].long() * REGION_COUNT + found.flatten()[known].long()
    return torch.bincount(pairs, minlength=REGION_COUNT**2).reshape(REGION_COUNT, REGION_COUNT)
