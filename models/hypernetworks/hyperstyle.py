"""HyperStyle's hypernetwork (Alaluf et al. 2022) in its published layout: a ResNet34 and a head per tuned layer.

Heads of 512 x 512 convolutions up to 64 px share one pair of matrices, which expands a vector [512] into the deltas of
a whole kernel. Each other head has its own 1x1 convolution to one delta per pair of output and input channel.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import state_dicts
from models.generators.interface import LayerEntry
from models.generators.stylegan2 import layer_table
from models.hypernetworks.batch_renorm import BatchRenorm
from models.stylegan_ops import EqualLinear

SHARED_UNTIL = 64  # px; layers of higher resolution have heads of their own
BLOCKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # channels, basic blocks, stride of the first
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of images in [0, 1]
SHARED = ("w1", "b1", "w2", "b2")


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), BatchRenorm(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), BatchRenorm(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchRenorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, in, H, W]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Trunk(nn.Module):
    """ResNet34 without pooling: [N, 6, 256, 256], image and rendering in [-1, 1] -> [N, 512, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(6, 64, 7, 2, 3, bias=False), BatchRenorm(64), nn.PReLU(64)
        blocks, inputs = [], 64
        for width, count, stride in BLOCKS:
            for i in range(count):
                blocks.append(Block(inputs, width, stride if i == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*blocks)

    @classmethod
    def load_imagenet(cls, tensors: Mapping[str, Tensor]) -> "Trunk":
        """Start from torchvision's published ResNet34: features of the mean of image and rendering.

        The file's input normalisation is folded into the first layer, which reads both halves alike; PReLU starts as
        ReLU, and there is no pooling. Raises: ValueError, in one line, when the tensors are not those of a ResNet34.
        """
        state = {_from_torchvision(name): t.float() for name, t in tensors.items() if not name.startswith("fc.")}
        net, what = cls(), "torchvision's ResNet34"
        counters = {n: t for n, t in net.state_dict().items() if n.endswith("num_batches_tracked")}
        state = counters | {"relu.weight": torch.zeros(64)} | state
        shapes = state_dicts.shapes(net) | {"conv1.weight": (64, 3, 7, 7)}
        state_dicts.check(shapes, state, what)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
        kernel = state["conv1.weight"] / std
        state["bn1.running_mean"] = state["bn1.running_mean"] - (kernel * (0.5 - mean)).sum((1, 2, 3))
        state["conv1.weight"] = 0.25 * torch.cat([kernel, kernel], 1)
        net.load_state_dict(state)
        return net

    def features(self, x: Tensor) -> Tensor:
        """Features [N, 512, 16, 16] of x [N, 6, 256, 256]."""
        return self.body(self.relu(self.bn1(self.conv1(x))))


def _halving(*widths: int, first: int = 2) -> nn.Sequential:
    """3x3 convolutions through `widths`, each with a leaky ReLU; all halve the sides, the first one if `first` is 2."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(a, b, 3, first if i == 0 else 2, 1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


class Expansion(nn.Module):
    """The two matrices with which shared heads expand their vector: [N, 512] -> deltas [N, 512, 512, 3, 3]."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.width = width
        self.w1, self.b1 = nn.Parameter(torch.zeros(width, width * 9)), nn.Parameter(torch.zeros(width * 9))
        self.w2, self.b2 = nn.Parameter(torch.zeros(width, width**2)), nn.Parameter(torch.zeros(width**2))

    def forward(self, z: Tensor) -> Tensor:
        """Deltas [N, 512, 512, 3, 3] of one layer from its vector z [N, 512]."""
        rows = torch.addmm(self.b2, z, self.w2).reshape(-1, self.width)
        return torch.addmm(self.b1, rows, self.w1).reshape(len(z), self.width, self.width, 3, 3)


class SharedHead(nn.Module):
    """[N, 512, 16, 16] -> the vector [N, 512] that an `Expansion` turns into deltas."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.convs = _halving(512, 128, 128, 128, 128, width, first=1)
        self.linear = EqualLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's vector [N, 512] of features x [N, 512, 16, 16]."""
        return self.linear(self.convs(x).flatten(1))


class OwnHead(nn.Module):
    """[N, 512, 16, 16] -> deltas [N, out, in, 1, 1], which a 3x3 kernel repeats over its taps."""

    def __init__(self, entry: LayerEntry) -> None:
        super().__init__()
        self.shape = entry.shape[:2]
        image = entry.kind == "to_img"
        self.convs = _halving(512, 256, 256, 256, 512) if image else _halving(512, 256, 256, 512)
        project = nn.Conv2d(512, self.shape[0] * self.shape[1], 1)
        self.output = nn.Sequential(project) if image else nn.Sequential(nn.AdaptiveAvgPool2d(1), project)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's deltas [N, out, in, 1, 1] of features x [N, 512, 16, 16]."""
        return self.output(self.convs(x)).reshape(len(x), *self.shape, 1, 1)


def shares(entry: LayerEntry) -> bool:
    """Whether the layer's head is one of those that share an expansion."""
    return entry.kind == "conv3x3" and entry.shape[:2] == (512, 512) and entry.resolution <= SHARED_UNTIL


class HyperStyle(Trunk):
    """The published network for the layers `tuned` of a generator's table.

    `expansion` keeps the shared matrices even if no tuned layer uses them, as published files do.
    """

    def __init__(self, table: Sequence[LayerEntry], tuned: Iterable[int], *, expansion: bool = False) -> None:
        super().__init__()
        self.table = list(table)
        rows = {i: table[i] for i in sorted(tuned)}
        self.refinement_blocks = nn.ModuleDict(
            {str(i): SharedHead() if shares(entry) else OwnHead(entry) for i, entry in rows.items()}
        )
        self.shared_weight_hypernet = Expansion() if expansion or any(map(shares, rows.values())) else None

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], table: Sequence[LayerEntry] | None = None) -> "HyperStyle":
        """Build from the file's `hypernet.*` tensors without that prefix; the tuned layers are those that have tensors.

        `table` is the generator's; without it, that of the smallest published generator that fits.
        Raises: ValueError, in one line, when the tensors are not those of such a network or belong to another table.
        """
        state = without_aliases(tensors)
        tuned = state_dicts.numbers(state, "refinement_blocks.")
        if not tuned:
            raise ValueError(
                f"not a HyperStyle hypernetwork: no refinement_blocks.* among {len(state)} tensors "
                f"({state_dicts.some(state)})"
            )
        table = _guess(state, tuned) if table is None else table
        if tuned[-1] >= len(table):
            raise ValueError(
                f"a HyperStyle hypernetwork with layer {tuned[-1]} belongs to a larger generator; "
                f"this one's layers end at {len(table) - 1}"
            )
        what = f"a HyperStyle hypernetwork for {len(tuned)} of {len(table)} layers"
        spare = "shared_weight_hypernet.w1" in state
        return state_dicts.fill(state_dicts.build(cls, table, tuned, expansion=spare), state, what)

    def delta(self, index: int, features: Tensor) -> Tensor:
        """Deltas of one tuned layer: [N, 512, 512, 3, 3] of a shared head, [N, out, in, 1, 1] of another."""
        head = self.refinement_blocks[str(index)]
        if isinstance(head, SharedHead) and self.shared_weight_hypernet is not None:
            return self.shared_weight_hypernet(head(features))
        return head(features)

    def forward(self, x: Tensor) -> list[Tensor | None]:
        """Deltas, in the kernels' shapes, of images and renderings x [N, 6, 256, 256]; None for layers not tuned."""
        features, deltas = self.features(x), []
        for i, entry in enumerate(self.table):
            tuned = str(i) in self.refinement_blocks
            deltas.append(self.delta(i, features).expand(-1, -1, -1, *entry.shape[2:]) if tuned else None)
        return deltas


def without_aliases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the copies of the shared expansion in shared heads. Raises: ValueError when a copy differs."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".hypernet.")
        if not (stem.startswith("refinement_blocks.") and last in SHARED):
            out[name] = tensor
            continue
        original = tensors.get(f"shared_weight_hypernet.{last}")
        if original is None:
            raise ValueError(
                f"not a HyperStyle hypernetwork: {name} repeats shared_weight_hypernet.{last}, which is missing"
            )
        same = original.data_ptr() == tensor.data_ptr() and original.shape == tensor.shape
        if not same and not torch.equal(original, tensor):
            raise ValueError(
                f"not a HyperStyle hypernetwork: {name} differs from shared_weight_hypernet.{last}, "
                "which it should repeat"
            )
    return out


def _from_torchvision(name: str) -> str:
    """torchvision's name of a tensor, with its layers counted through: `layer2.0.` is `body.3.`."""
    stage, _, rest = name.partition(".")
    if not stage.startswith("layer") or stage.removeprefix("layer") not in ("1", "2", "3", "4"):
        return name
    number, _, leaf = rest.partition(".")
    first = sum(count for _, count, _ in BLOCKS[: int(stage[-1]) - 1])
    return f"body.{first + int(number)}.{leaf}" if number.isdecimal() else name


def _guess(state: Mapping[str, Tensor], tuned: Sequence[int]) -> list[LayerEntry]:
    """The table of the smallest published generator that the heads fit."""
    for size in (256, 512, 1024):
        for multiplier in (2, 1):
            table = layer_table(size, multiplier)
            if tuned[-1] < len(table) and all(_fits(state, i, table[i]) for i in tuned):
                return table
    raise ValueError(
        f"the heads of this HyperStyle hypernetwork (layers up to {tuned[-1]}) fit no generator "
        "of 256, 512 or 1024 px with channel multiplier 2 or 1"
    )


def _fits(state: Mapping[str, Tensor], index: int, entry: LayerEntry) -> bool:
    place = f"refinement_blocks.{index}."
    if shares(entry):
        return f"{place}linear.weight" in state
    weight = state.get(f"{place}output.{0 if entry.kind == 'to_img' else 1}.weight")
    return weight is not None and weight.ndim > 0 and weight.shape[0] == entry.shape[0] * entry.shape[1]
