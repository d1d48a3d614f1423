"""The layers of both discriminators, and their published names."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from models import state_dicts
from models.stylegan_ops import GAIN, Bias, EqualConv, fir, upfirdn

Discriminator = TypeVar("Discriminator", bound=nn.Module)


class ConvLayer(nn.Module):
    """Blur (when halving), convolution, activation: StyleGAN2's basic layer."""

    blur: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, down: bool = False, active: bool = True, padded: bool = True
    ) -> None:
        super().__init__()
        self.down, self.kernel = down, kernel
        self.filter_by(fir())
        padding = kernel // 2 if padded and not down else 0
        self.conv = EqualConv(inputs, outputs, kernel, stride=2 if down else 1, padding=padding)
        self.act: nn.Module = Bias(outputs) if active else nn.Identity()

    def filter_by(self, blur: Tensor) -> None:
        """Set the blur kernel [K, K], and the border with which this layer halves the sides exactly."""
        self.register_buffer("blur", blur, persistent=False)
        pad = len(blur) + self.kernel - 3
        self.border = ((pad + 1) // 2, pad // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W], halving its sides if this layer does."""
        if self.down:
            x = upfirdn(x, self.blur, pad=self.border)
        return self.act(self.conv(x))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 skip, the sum over sqrt 2."""

    def __init__(self, inputs: int, outputs: int, *, down: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=down)
        self.skip = ConvLayer(inputs, outputs, 1, down=down, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, inputs, H, W] to [N, outputs, H / 2, W / 2], or at its own size without `down`."""
        return (self.conv2(self.conv1(x)) + self.skip(x)) / GAIN


def from_published(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Rename a published state dict (Swapping Autoencoder, or rosinality's StyleGAN2 under `d`) to this module's keys.

    Prefixes before `convs.`, `final_` and `pairlinear.` are removed. Also returns the blur kernel, which files repeat
    per layer. Raises: ValueError when the copies differ or are not square.
    """
    out: dict[str, Tensor] = {}
    blur: Tensor | None = None
    for key, value in tensors.items():
        if key.endswith("kernel"):
            blur = value.float() if blur is None else blur
            if value.ndim != 2 or value.shape[0] != value.shape[1] or not torch.equal(value.float(), blur):
                raise ValueError(f"{key} is not the square blur kernel of the other layers")
            continue
        key = re.sub(r"^(Dpatch|D)\.", "", key).removeprefix("stylegan2_D.")
        key = key.replace(".Conv.", ".conv.").replace(".Act.", ".act.")
        if not key.startswith(("final_linear", "pairlinear")):
            key = re.sub(r"\.[01]\.weight$", ".conv.weight", key)
            key = re.sub(r"\.[12]\.bias$", ".act.bias", key)
        out[key] = value
    return out, fir() if blur is None else blur


def fill(make: Callable[[], Discriminator], state: Mapping[str, Tensor], blur: Tensor, what: str) -> Discriminator:
    """The network that `make` builds, with the tensors of `state` and the kernel `blur`, in evaluation mode.

    Raises: ValueError, in one line, when the tensors do not fit; `what` names the network.
    """
    with torch.device("meta"):  # a file may claim any width: it is checked before memory is taken
        state_dicts.check(state_dicts.shapes(make()), state, what)
    net = make()
    net.load_state_dict({name: t.float() for name, t in state.items()})
    for layer in net.modules():
        if isinstance(layer, ConvLayer):
            layer.filter_by(blur)
    return net.eval()
