"""The two critics of the stylisation pass: one judges whole images, one whether patches share a region's style.

Both are StyleGAN2 residual networks. The image critic leaves minibatch deviation out, so that batch 1 is safe; the
patch critic is the Swapping Autoencoder's co-occurrence discriminator, rewritten from its published shapes. `width`
and `base` narrow them for training without a GPU; `load` builds the published networks from their files' tensors.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from models import state_dicts
from models.generators import interface
from models.stylegan_ops import GAIN, Bias, EqualConv, EqualLinear, fir, upfirdn

Critic = TypeVar("Critic", bound=nn.Module)


class ConvLayer(nn.Module):
    """Blur (when halving), convolution, activation: StyleGAN2's unit of construction."""

    blur: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, active: bool = True,
                 padded: bool = True) -> None:
        super().__init__()
        self.down, self.kernel = down, kernel
        self.filter_by(fir())
        padding = kernel // 2 if padded and not down else 0
        self.conv = EqualConv(inputs, outputs, kernel, stride=2 if down else 1, padding=padding)
        self.act: nn.Module = Bias(outputs) if active else nn.Identity()

    def filter_by(self, blur: Tensor) -> None:
        """Blur with the kernel `blur` [K, K]; the border is what then halves the sides."""
        self.register_buffer("blur", blur, persistent=False)
        pad = len(blur) + self.kernel - 3
        self.border = ((pad + 1) // 2, pad // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W), halving its sides if this layer does."""
        if self.down:
            x = upfirdn(x, self.blur, pad=self.border)
        y: Tensor = self.act(self.conv(x))
        return y


class Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 skip, the sum over sqrt 2."""

    def __init__(self, inputs: int, outputs: int, *, down: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, down=down)
        self.skip = ConvLayer(inputs, outputs, 1, down=down, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, inputs, H, W) to (N, outputs, H / 2, W / 2), or at its own size without `down`."""
        y: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / GAIN
        return y


class ImageDiscriminator(nn.Module):
    """Scores images (N, 3, size, size) in [-1, 1] with one logit each, (N, 1).

    Channels at resolution r are min(top, base / r); base 32768 and top 512 are the published network, base 4096 and
    top 128 one that trains on a CPU; `channels` lists them instead, from `size` down to 4. `stddev` adds minibatch
    deviation, which only published StyleGAN2 files need; `checkpointing` recomputes activations in the backward pass.
    """

    def __init__(self, size: int = 256, *, base: int = 32768, top: int = 512, stddev: bool = False,
                 channels: Sequence[int] | None = None) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"image discriminator size has to be a power of two from 8, got {size}")
        self.size, self.stddev, self.checkpointing = size, stddev, False
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]
        channels = [min(top, base // side) for side in sides] if channels is None else channels
        self.convs = nn.Sequential(ConvLayer(3, channels[0], 1), *(Residual(a, b) for a, b in pairwise(channels)))
        self.final_conv = ConvLayer(channels[-1] + int(stddev), channels[-1], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[-1] * 16, channels[-1], active=True), EqualLinear(channels[-1], 1)
        )

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "ImageDiscriminator":
        """Build from rosinality's `d` or the Swapping Autoencoder's `D.*` tensors; sizes are inferred.

        Raises: ValueError, one line, when they are not those of such a network.
        """
        state, blur = from_published(tensors)
        state = _counted(state)
        depth = len(state_dicts.numbers(state, "convs.")) - 1
        what = f"a StyleGAN2 image discriminator for {4 << max(depth, 0)} px"
        names = ["convs.0.conv", *(f"convs.{i + 1}.skip.conv" for i in range(max(depth, 1)))]
        widths = [state_dicts.width(state, f"{name}.weight", what) for name in names]
        stddev = state_dicts.width(state, "final_conv.conv.weight", what, 1) == widths[-1] + 1
        return _fill(partial(cls, 4 << depth, stddev=stddev, channels=widths), state, blur, what)

    def features(self, x: Tensor) -> Tensor:
        """What the last layers judge: (N, C, 4, 4)."""
        for layer in self.convs:
            x = interface.run(layer, x, again=self.checkpointing)
        if self.stddev:
            n, _, h, w = x.shape
            group = next(g for g in (4, 3, 2, 1) if n % g == 0)
            spread = (x.reshape(group, n // group, -1).var(0, unbiased=False) + 1e-8).sqrt().mean(1)
            x = torch.cat([x, spread.view(-1, 1, 1, 1).repeat(group, 1, h, w)], 1)
        found: Tensor = self.final_conv(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1) of x (N, 3, size, size)."""
        logits: Tensor = self.final_linear(self.features(x).flatten(1))
        return logits


class PatchDiscriminator(nn.Module):
    """Scores whether patches of `size` px share the style of reference patches (paper section 3.5, equation 4).

    `width` scales every channel count; 1 is the published 24.4M network, 0.3 about 2.2M. `channels` lists them
    instead, from `size` down to 4 px, then those of the widest layer.
    """

    def __init__(self, *, size: int = 32, width: float = 1.0, channels: Sequence[int] | None = None,
                 hidden: int | None = None) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ValueError(f"patch discriminator size has to be a power of two from 8, got {size}")
        self.size = size
        sides = [size >> i for i in range(int(math.log2(size)) - 1)]
        if channels is None:
            channels = [*(max(8, round(min(384, 4096 // side) * width)) for side in sides), max(8, round(768 * width))]
        hidden = max(8, round(2048 * width)) if hidden is None else hidden
        *inner, top = channels
        blocks: dict[str, nn.Module] = {"0": ConvLayer(3, inner[0], 3)}
        for side, (a, b) in zip(sides, pairwise(inner), strict=False):
            blocks[level(side)] = Residual(a, b)
        blocks |= {"5": Residual(inner[-1], top, down=False), "6": ConvLayer(top, inner[-1], 3, padded=False)}
        self.convs = nn.ModuleDict(blocks)
        sizes = (inner[-1] * 8, hidden, hidden, hidden // 2)
        hiddens = (EqualLinear(a, b, active=True) for a, b in pairwise(sizes))
        self.pairlinear = nn.Sequential(*hiddens, EqualLinear(sizes[-1], 1))

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "PatchDiscriminator":
        """Build from the Swapping Autoencoder's `Dpatch.*` tensors; patch size and channels are inferred.

        Raises: ValueError, one line, when they are not those of such a network.
        """
        state, blur = from_published(tensors)
        sides = [s for s in (1024, 512, 256, 128, 64, 32, 16, 8) if f"convs.{level(s)}.skip.conv.weight" in state]
        what = f"a patch co-occurrence discriminator for {sides[0] if sides else 32} px"
        names = ["convs.0.conv", *(f"convs.{level(side)}.skip.conv" for side in sides), "convs.5.skip.conv"]
        widths = [state_dicts.width(state, f"{name}.weight", what) for name in names]
        hidden = state_dicts.width(state, "pairlinear.0.weight", what)
        return _fill(partial(cls, size=sides[0] if sides else 32, channels=widths, hidden=hidden), state, blur, what)

    def features(self, patches: Tensor) -> Tensor:
        """Features (..., C, 2, 2) of patches (..., 3, size, size) in [-1, 1]."""
        x = patches.flatten(0, -4)
        for layer in self.convs.values():
            x = layer(x)
        return x.reshape(*patches.shape[:-3], *x.shape[1:])

    def score(self, reference: Tensor, features: Tensor) -> Tensor:
        """Logits (...,) that `features` (..., C, 2, 2) go with `reference` of the same shape."""
        logits: Tensor = self.pairlinear(torch.cat([reference.flatten(-3), features.flatten(-3)], -1))
        return logits.squeeze(-1)

    def forward(self, reference: Tensor, patches: Tensor) -> Tensor:
        """Logits (G, P) of patches (G, P, 3, s, s), each against its group's mean reference (G, R, 3, s, s)."""
        mean = self.features(reference).mean(1, keepdim=True)
        features = self.features(patches)
        return self.score(mean.expand_as(features), features)


def level(side: int) -> str:
    """The published name of the patch discriminator's layer that halves `side` px."""
    return f"{side}x{side}" if side > 64 else str(7 - int(math.log2(side)))


def from_published(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Rename a published state dict (Swapping Autoencoder, or rosinality's StyleGAN2 under `d`) to this module's keys.

    Prefixes before `convs.`, `final_` and `pairlinear.` go. Also returns the blur kernel, which files repeat a layer.
    Raises: ValueError when the copies differ or are no square.
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


def _counted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers from the first on; the Swapping Autoencoder calls one of 512 px 512x512, that of 128 px 2."""
    names = {key.split(".")[1] for key in state if re.match(r"convs\.\d+(x\d+)?\.", key)}
    sides = {name: int(name.split("x")[0]) for name in names}
    order = sorted(names, key=lambda n: (n != "0", "x" not in n, -sides[n] if "x" in n else sides[n]))
    place = {name: str(i) for i, name in enumerate(order)}
    return {re.sub(r"^convs\.(\w+)\.", lambda m: f"convs.{place.get(m[1], m[1])}.", key): t for key, t in state.items()}


def _fill(make: Callable[[], Critic], state: Mapping[str, Tensor], blur: Tensor, what: str) -> Critic:
    with torch.device("meta"):  # a file may claim any width: it is checked before memory is taken
        state_dicts.check(state_dicts.shapes(make()), state, what)
    net = make()
    net.load_state_dict({name: t.float() for name, t in state.items()})
    for layer in net.modules():
        if isinstance(layer, ConvLayer):
            layer.filter_by(blur)
    return net.eval()
