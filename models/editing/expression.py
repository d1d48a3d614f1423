"""face-api's expression network (MIT): seven expressions of a face, of which a smile is scored by the happy one."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
from models.parsing.portrait import Convolution

WIDTHS = (32, 64, 128, 256)
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
SIDE = 112
_LAYOUT = {"filters": "", "depthwise_filter": "0.", "pointwise_filter": "1."}  # a published kernel's place in a layer


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Convolution(inputs, inputs, 3, stride, groups=inputs, bias=False), Convolution(inputs, outputs, 1)
    )


class Block(nn.Module):
    """Halves the sides, then adds up what three further layers make of the sums so far."""

    def __init__(self, inputs: int, outputs: int, first: bool) -> None:
        super().__init__()
        self.conv0 = Convolution(inputs, outputs, 3, 2) if first else _separable(inputs, outputs, 2)
        self.rest = nn.ModuleList(_separable(outputs, outputs) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, in, H, W] to [N, out, H / 2, W / 2]."""
        total = F.relu(self.conv0(x))
        for layer in self.rest:
            total = total + layer(F.relu(total))
        return F.relu(total)


class ExpressionNet(nn.Module):
    """Logits of the EXPRESSIONS of faces, frozen."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.blocks = nn.Sequential(*(Block(inputs[i], WIDTHS[i], i == 0) for i in range(len(WIDTHS))))
        self.fc = nn.Linear(WIDTHS[-1], len(EXPRESSIONS))
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "ExpressionNet":
        """Build from the converted tensors (HWIO kernels). Raises: ValueError when they are not the network's."""
        state = {}
        for name, tensor in tensors.items():
            block, layer, *leaf = name.split("/")
            if block == "fc":
                state[f"fc.{'bias' if layer == 'bias' else 'weight'}"] = tensor.T if tensor.ndim == 2 else tensor
                continue
            number = layer.removeprefix("conv")
            place = f"blocks.{block.removeprefix('dense')}." + (
                "conv0." if number == "0" else f"rest.{int(number) - 1}."
            )
            if leaf == ["bias"]:
                whole = f"{block}/{layer}/filters" in tensors
                state[f"{place}{'' if whole else '1.'}convolution.bias"] = tensor
            else:
                order = (2, 3, 0, 1) if leaf == ["depthwise_filter"] else (3, 2, 0, 1)
                state[f"{place}{_LAYOUT[leaf[0]]}convolution.weight"] = tensor.permute(order)
        return state_dicts.fill(state_dicts.build(cls), state, "face-api's expression network")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 7] of faces [N, 3, 112, 112], (RGB 0..255 - mean) / 255."""
        return self.fc(self.blocks(x).mean((2, 3)))
