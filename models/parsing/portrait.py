"""The portrait parser of three regions: BiSeNetV2 (Yu et al. 2021) as plain modules, its 19 classes grouped.

A photo parser relies on texture, which is exactly what a painting changes. This one starts as its photo teacher
(`models/parsing/teacher.py`). It is trained (`stages/pretrain/parser.py`) on that teacher's labels with the same faces
after stylisation, so that only shape helps it. Batch normalisation is folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
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
        """Convolve x [N, in, H, W]."""
        return self.convolution(F.pad(x, self.pads))


class Stem(nn.Module):
    """RGB [N, 3, H, W] -> [N, 16, H / 4, W / 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(3, 16, 3, 2)
        self.squeeze = Convolution(16, 8, 1)
        self.left = Convolution(8, 16, 3, 2)
        self.last = Convolution(32, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, 16, H / 4, W / 4] of x [N, 3, H, W]."""
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
        """Map x [N, in, H, W] to [N, out, H / stride, W / stride]."""
        return F.relu(self.project(self.deepen(self.expand(F.relu(self.first(x))))) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The context embedding: the mean over the image, added to every position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.mix = Convolution(channels, channels, 1)
        self.last = Convolution(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W]."""
        mean = x.mean((2, 3), keepdim=True) * self.scale[:, None, None] + self.offset[:, None, None]
        return self.last(x + F.relu(self.mix(mean)))


class Semantic(nn.Sequential):
    """The light, deep branch for meaning: RGB [N, 3, H, W] -> [N, 128, H / 32, W / 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.stage3 = nn.Sequential(Gather(16, 32, 2), Gather(32, 32, 1))
        self.stage4 = nn.Sequential(Gather(32, 64, 2), Gather(64, 64, 1))
        self.stage5 = nn.Sequential(Gather(64, 128, 2), Gather(128, 128, 1), Gather(128, 128, 1), Gather(128, 128, 1))
        self.context = ContextEmbedding(128)


class Detail(nn.Sequential):
    """The wide, shallow branch for edges: RGB [N, 3, H, W] -> [N, 128, H / 8, W / 8]. The last layer has no ReLU."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        widths = (3, 64, 64, 64, 64, 64, 128, 128, 128)
        for i, stride in enumerate((2, 1, 2, 1, 1, 2, 1, 1)):
            layers += [Convolution(widths[i], widths[i + 1], 3, stride), nn.ReLU()]
        super().__init__(*layers[:-1])


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch gates the other, at 1/8 and at 1/32 of the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = _separable(channels)
        self.shrink = Convolution(channels, channels, 3, 2)
        self.semantic = _separable(channels)
        self.enlarge = Convolution(channels, channels, 3)
        self.last = Convolution(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Fuse detail [N, C, H, W] and semantic [N, C, H / 4, W / 4]: [N, C, H, W]."""
        near = self.detail(detail) * enlarge(self.enlarge(semantic), 4).sigmoid()
        small = F.avg_pool2d(self.shrink(detail), 3, 2, ceil_mode=True)
        return F.relu(self.last(near + enlarge(small * self.semantic(semantic).sigmoid(), 4)))


class PortraitParser(nn.Module):
    """Both branches, their aggregation and the head of 19 classes, on images resized to `size`, a multiple of 32."""

    spread: Tensor

    def __init__(self, size: int = WORKING_SIZE) -> None:
        super().__init__()
        self.size = size
        self.semantic, self.detail, self.aggregation = Semantic(), Detail(), Aggregation(128)
        last = Convolution(256, len(REGION_OF_CLASS), 1, bias=False)
        self.head = nn.Sequential(Convolution(128, 256, 3), nn.ReLU(), last)
        self.register_buffer("spread", _spread(size // 8, MAP_SIZE), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Region logits: RGB [N, 3, 256, 256] in [-1, 1] -> [N, 3, 256, 256] (hair, face, background)."""
        if images.ndim != 4 or images.shape[1:] != (3, MAP_SIZE, MAP_SIZE):
            raise ValueError(f"parser expects [N, 3, {MAP_SIZE}, {MAP_SIZE}], got {list(images.shape)}")
        x = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        return self.spread @ by_region(self.classes(x)) @ self.spread.T

    def classes(self, x: Tensor) -> Tensor:
        """Scores of CelebAMask's 19 classes: [N, 3, S, S], S a multiple of 32 -> [N, 19, S/8, S/8]."""
        return self.head(self.aggregation(self.detail(x), self.semantic(x)))

    @torch.no_grad()
    def parse(self, images: Tensor) -> Tensor:
        """Region map: RGB [N, 3, 256, 256] in [-1, 1] -> uint8 [N, 256, 256] of 0 hair, 1 face, 2 background."""
        return self(images).argmax(1).to(torch.uint8)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> PortraitParser:
        """Build the parser, in evaluation mode, from its state dict of any float type.

        Raises: ValueError when the tensors do not fit.
        """
        parser = cls()
        state_dicts.check(state_dicts.shapes(parser), tensors, "a portrait parser")
        parser.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return parser.eval()


def by_region(classes: Tensor) -> Tensor:
    """Region logits [N, 3, H, W] of class scores [N, 19, H, W]: their softmax sums the classes' over each region."""
    groups = [[i for i, of_class in enumerate(REGION_OF_CLASS) if of_class == region] for region in range(REGION_COUNT)]
    chosen = (torch.stack([classes[:, i] for i in group], 1) for group in groups)  # a list of indices would sync a GPU
    return torch.stack([scores.logsumexp(1) for scores in chosen], 1)


def enlarge(x: Tensor, times: int) -> Tensor:
    """TensorFlow's legacy bilinear resize of [N, C, H, W] to [N, C, times * H, times * W]; pixel i reads i / times."""
    size = [side * times + 1 for side in x.shape[2:]]
    repeated = F.pad(x, [0, 1, 0, 1], mode="replicate")
    return F.interpolate(repeated, size, mode="bilinear", align_corners=True)[..., :-1, :-1]


def _spread(cells: int, size: int) -> Tensor:
    """Interpolation matrix [size, cells] from `cells` samples, 8 px apart from pixel 0 on, to `size` pixels."""
    where = ((torch.arange(size) + 0.5) * (8 * cells / size) - 0.5).clamp(min=0) / 8
    return (1 - (where.clamp(max=cells - 1)[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def _separable(channels: int) -> nn.Sequential:
    depthwise = Convolution(channels, channels, 3, groups=channels)
    return nn.Sequential(depthwise, Convolution(channels, channels, 1, bias=False))


def distillation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus soft Dice of logits [N, 3, H, W] against the teacher's probabilities [N, 3, H, W]: a scalar.

    Dice gives the three regions equal weight, however few pixels one has; otherwise thin hair would count for nothing.
    Pixels whose probabilities are all zero are not known and count for nothing.
    """
    entropy = -(target * logits.log_softmax(1)).sum(1).mean()
    probability = logits.softmax(1) * target.sum(1, keepdim=True)
    axes = (0, 2, 3)
    overlap = 2 * (probability * target).sum(axes) + 1
    dice = 1 - overlap / (probability.square().sum(axes) + target.square().sum(axes) + 1)
    return entropy + dice.mean()


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union of the regions present in a confusion matrix [R, R], as from `confusion`."""
    hits = confusion.diagonal().double()
    union = (confusion.sum(0) + confusion.sum(1)).double() - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def confusion(truth: Tensor, predicted: Tensor) -> Tensor:
    """Pixel counts [3, 3] by true (row) and predicted (column) region, without pixels unknown in the truth."""
    known = truth.flatten() != UNKNOWN
    pairs = truth.flatten()[known].long() * REGION_COUNT + predicted.flatten()[known].long()
    return torch.bincount(pairs, minlength=REGION_COUNT**2).reshape(REGION_COUNT, REGION_COUNT)
