"""The three-region portrait parser: BiSeNetV2's light semantic branch with a small decoder of our own.

A photo parser reads texture, which is exactly what a painting changes. This one is distilled (`stages.train_parser`):
its encoder starts from its photo teacher's (Yu et al. 2021, section 4.2), its labels come from that teacher, and its
inputs are the same faces after stylisation, so that only shape helps it. The teacher's wide detail branch, most of its
cost, is replaced by skip connections.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.windows import REGIONS, UNKNOWN

SIZE = 256


class Convolution(nn.Module):
    """A convolution padded as TensorFlow does (the odd pixel after the image), so that the teacher's kernels fit."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
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
        right = F.max_pool2d(F.pad(half, [0, 1, 0, 1]), 3, 2)  # after a ReLU, so that padding by zero is right
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


class Context(nn.Module):
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


class Encoder(nn.Module):
    """BiSeNetV2's semantic branch, batch normalisation folded in: features at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.stage3 = nn.Sequential(Gather(16, 32, 2), Gather(32, 32, 1))
        self.stage4 = nn.Sequential(Gather(32, 64, 2), Gather(64, 64, 1))
        self.stage5 = nn.Sequential(Gather(64, 128, 2), Gather(128, 128, 1), Gather(128, 128, 1), Gather(128, 128, 1))
        self.context = Context(128)

    def forward(self, x: Tensor) -> list[Tensor]:
        quarter = self.stem(x)
        eighth = self.stage3(quarter)
        sixteenth = self.stage4(eighth)
        return [quarter, eighth, sixteenth, self.context(self.stage5(sixteenth))]


class PortraitParser(nn.Module):
    """Encoder and a decoder that goes up from 1/32 to 1/4, adding the encoder's features; the head doubles that."""

    def __init__(self, widths: tuple[int, int, int] = (48, 64, 96)) -> None:
        super().__init__()
        self.encoder = Encoder()
        deeper = (*widths[1:], 128)
        self.lateral = nn.ModuleList([nn.Conv2d(i, o, 1) for i, o in zip((16, 32, 64), widths, strict=True)])
        self.reduce = nn.ModuleList([nn.Conv2d(i, o, 1) for i, o in zip(deeper, widths, strict=True)])
        self.up = nn.ModuleList([_block(width) for width in widths])
        self.head = nn.Conv2d(widths[0], len(REGIONS) * 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Region logits: RGB [N,3,256,256] in [-1,1] -> [N,3,256,256] (hair, face, background)."""
        return F.interpolate(self.coarse(images), (SIZE, SIZE), mode="bilinear", align_corners=False)

    def coarse(self, images: Tensor) -> Tensor:
        """Region logits at half resolution, where the network is trained: [N,3,256,256] -> [N,3,128,128]."""
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise ValueError(f"parser expects [N,3,{SIZE},{SIZE}], got {tuple(images.shape)}")
        *skips, x = self.encoder(images)
        for level in (2, 1, 0):
            x = F.interpolate(self.reduce[level](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[level](x + self.lateral[level](skips[level]))
        return F.pixel_shuffle(self.head(x), 2)

    @torch.no_grad()
    def parse(self, images: Tensor) -> Tensor:
        """Region map: RGB [N,3,256,256] in [-1,1] -> uint8 [N,256,256] of 0 hair, 1 face, 2 background.

        The picture and its mirror image are both looked at: half a percent of IoU for a twentieth of a second.
        """
        mirrored = self(images.flip(-1)).flip(-1)
        return (self(images).softmax(1) + mirrored.softmax(1)).argmax(1).to(torch.uint8)

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

    def start_from(self, teacher: Mapping[str, Tensor]) -> None:
        """Copy the teacher's semantic branch into the encoder; `teacher` as in `models.bisenetv2`."""
        for module, place in _teacher_names().items():
            own = self.encoder.get_submodule(module)
            depthwise = "depthwise_conv" in place or place.endswith("dw_conv_block")
            stem = f"{_BRANCH}/{place}/" + ("depthwise_conv_output" if depthwise else "conv/Conv2D")
            kernel = teacher[f"{stem}_weights"]
            flat = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else kernel.permute(3, 2, 0, 1)
            with torch.no_grad():
                own.get_parameter("convolution.weight").copy_(flat)
                own.get_parameter("convolution.bias").copy_(teacher[f"{stem}_bn_offset"])
        place, context = f"{_BRANCH}/{_CONTEXT}", self.encoder.context
        with torch.no_grad():
            context.scale.copy_(teacher[f"{place}/bn/FusedBatchNormV3/Scaled"].flatten())
            context.offset.copy_(teacher[f"{place}/bn/FusedBatchNormV3/Offset"].flatten())
            context.last.convolution.weight.copy_(teacher[f"{place}/final_conv_block/W"].permute(3, 2, 0, 1))


_BRANCH = "BiseNetV2/semantic_branch"
_CONTEXT = "stage_5/ce_block_3_repeat_1/context_embedding_block"


def _teacher_names() -> dict[str, str]:
    """Encoder module -> the teacher's block, for every convolution with a bias."""
    stem = "stage_1/se_block_1_repeat_1/stem_block"
    names = {
        "stem.first": f"{stem}/conv_block_1",
        "stem.squeeze": f"{stem}/downsample_branch_left/1x1_conv_block",
        "stem.left": f"{stem}/downsample_branch_left/3x3_conv_block",
        "stem.last": f"{stem}/final_conv_block",
        "context.mix": f"{_CONTEXT}/conv_block_1",
    }
    for stage, repeats in ((3, 1), (4, 1), (5, 3)):
        block = f"stage_{stage}/ge_block_1_repeat_1/gather_expansion_block/stride_equal_two_module"
        names |= {
            f"stage{stage}.0.{own}": f"{block}/{theirs}"
            for own, theirs in (
                ("first", "3x3_conv_block"),
                ("expand", "depthwise_conv_block_1"),
                ("deepen", "depthwise_conv_block_2"),
                ("project", "1x1_conv_block"),
                ("shortcut.0", "input_project_dw_conv_block"),
                ("shortcut.1", "input_project_1x1_conv_block"),
            )
        }
        for i in range(1, repeats + 1):
            block = f"stage_{stage}/ge_block_2_repeat_{i}/gather_expansion_block/stride_equal_one_module"
            names |= {
                f"stage{stage}.{i}.{own}": f"{block}/{theirs}"
                for own, theirs in (
                    ("first", "3x3_conv_block"),
                    ("expand", "depthwise_conv_block"),
                    ("project", "1x1_conv_block"),
                )
            }
    return names


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
    pairs = truth.flatten()[known].long() * len(REGIONS) + found.flatten()[known].long()
    return torch.bincount(pairs, minlength=len(REGIONS) ** 2).reshape(len(REGIONS), len(REGIONS))


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
