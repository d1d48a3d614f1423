"""The Swapping Autoencoder (Park et al. 2020): an image as structure and texture codes, and a generator of both.

Written from its published shapes; the discriminators it is trained with are in `models/discriminators/`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts
from models.stylegan_ops import GAIN, Bias, EqualConv, EqualLinear, upfirdn

GLOBAL = 2  # halvings from the structure code's size to the texture code's
WHAT = "a Swapping Autoencoder"


def unit(x: Tensor) -> Tensor:
    """x [N, C, ...] with length 1 over its channels."""
    return x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()


class Blur(nn.Module):
    """A low-pass filter of each channel; the kernel [K, K] travels with the weights."""

    kernel: Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(taps, taps) / taps**2)

    def forward(self, x: Tensor, pad: tuple[int, int] = (0, 0)) -> Tensor:
        return upfirdn(x, self.kernel, pad=pad)


class BiasedConv(EqualConv):
    """An equalised 1x1 convolution with a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias[:, None, None]


class Layer(nn.Module):
    """Padding, blur, convolution, activation; `pad` is (before, after) of both axes, by reflection or with zeros."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, pad: tuple[int, int] = (0, 0), reflect: bool = True,
        blur: int = 0, stride: int = 1, active: bool = True, bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pad, self.mode = (*pad, *pad), "reflect" if reflect else "constant"
        if blur:
            self.Blur = Blur(blur)
        self.Conv = BiasedConv(inputs, outputs) if bias else EqualConv(inputs, outputs, kernel, stride=stride)
        if active:
            self.Act = Bias(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad, self.mode) if any(self.pad) else x
        for layer in self.children():
            x = layer(x)
        return x


class DownBlock(nn.Module):
    """A residual block that halves the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Layer(inputs, inputs, 3, pad=(1, 1))
        self.conv2 = Layer(inputs, outputs, 3, pad=(2, 1), blur=3, stride=2)
        self.skip = Layer(inputs, outputs, 1, pad=(1, 0), reflect=False, blur=3, stride=2, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / GAIN


class Encoder(nn.Module):
    """E: an image [N, 3, H, W] in [-1, 1] to its codes; `channels` of each level from the image's size down."""

    def __init__(self, channels: Sequence[int], structure: int, texture: int) -> None:
        super().__init__()
        self.halvings = len(channels) - 1 - GLOBAL
        self.FromRGB = Layer(3, channels[0], 1)
        self.DownToSpatialCode = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(channels[: self.halvings + 1])):
            self.DownToSpatialCode.add_module(f"ResBlockDownBy{2**i}", DownBlock(a, b))
        middle = channels[self.halvings]
        self.ToSpatialCode = nn.Sequential(
            Layer(middle, middle, 1), Layer(middle, structure, 1, active=False, bias=True)
        )
        self.DownToGlobalCode = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(channels[self.halvings :]), self.halvings):
            self.DownToGlobalCode.add_module(f"ConvLayerDownBy{2**i}", Layer(a, b, 3, blur=1, stride=2))
        self.ToGlobalCode = nn.Sequential(EqualLinear(channels[-1], texture))

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both codes before they are brought to length 1."""
        x = self.DownToSpatialCode(self.FromRGB(images))
        return self.ToSpatialCode(x), self.ToGlobalCode(self.DownToGlobalCode(x).mean((2, 3)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The structure code [N, S, H / 2^halvings, W / 2^halvings] and the texture code [N, T], both of length 1."""
        structure, texture = self.raw(images)
        return unit(structure), unit(texture)


class ModulatedConv(nn.Module):
    """A convolution whose input's channels the texture code scales; with `up` it doubles the sides."""

    def __init__(self, inputs: int, outputs: int, texture: int, kernel: int = 3, *, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(texture, inputs, bias=1)
        self.kernel, self.up = kernel, up
        if up:
            self.blur = Blur(4)

    def forward(self, x: Tensor, texture: Tensor) -> Tensor:
        scale, weight = self.modulation(texture), self.weight[0] / math.sqrt(self.weight[0, 0].numel())
        if self.kernel > 1:  # the last layer has neither normalisation
            scale = scale * (scale.square().mean(1, keepdim=True) + 1e-8).rsqrt()
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        x = x * scale[:, :, None, None]
        if self.up:
            return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1))
        return F.conv2d(x, weight, padding=self.kernel // 2)


class Noise(nn.Module):
    """Adds noise [1, 1, h, w], by nearest neighbours at the size of x, times a learnt weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * F.interpolate(noise, x.shape[2:], mode="nearest")


class StyledConv(nn.Module):
    """Modulated convolution, noise, activation."""

    def __init__(self, inputs: int, outputs: int, texture: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, texture, up=up)
        self.noise, self.activate = Noise(), Bias(outputs)

    def forward(self, x: Tensor, texture: Tensor, noise: Iterator[Tensor | None]) -> Tensor:
        x, own = self.conv(x, texture), next(noise)
        return self.activate(x if own is None else self.noise(x, own.to(x)))


class UpBlock(nn.Module):
    """A residual block of styled convolutions, which doubles the sides if `up`."""

    def __init__(self, inputs: int, outputs: int, texture: int, *, up: bool) -> None:
        super().__init__()
        self.conv1 = StyledConv(inputs, outputs, texture, up=up)
        self.conv2 = StyledConv(outputs, outputs, texture)
        self.up, self.skip = up, None if inputs == outputs else Layer(inputs, outputs, 1, active=up)

    def forward(self, x: Tensor, texture: Tensor, noise: Iterator[Tensor | None]) -> Tensor:
        skip = x if self.skip is None else self.skip(x)
        if self.up:
            skip = F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=False)
        return (skip + self.conv2(self.conv1(x, texture, noise), texture, noise)) / GAIN


class CodeModulation(nn.Module):
    """Scales and shifts the structure code's channels by the texture code."""

    def __init__(self, structure: int, texture: int) -> None:
        super().__init__()
        self.scale, self.bias = EqualLinear(texture, structure), EqualLinear(texture, structure)

    def forward(self, x: Tensor, texture: Tensor) -> Tensor:
        return x * self.scale(texture)[:, :, None, None] + self.bias(texture)[:, :, None, None]


class ToRGB(nn.Module):
    """Features to an image; the published files bring an upsampling kernel that is never used."""

    def __init__(self, inputs: int, texture: int) -> None:
        super().__init__()
        self.bias, self.upsample = nn.Parameter(torch.zeros(1, 3, 1, 1)), Blur(4)
        self.conv = ModulatedConv(inputs, 3, texture, 1)

    def forward(self, x: Tensor, texture: Tensor) -> Tensor:
        return self.conv(x, texture) + self.bias


class Generator(nn.Module):
    """G: structure [N, S, h, w] and texture codes [N, T] to an image [N, 3, h 2^U, w 2^U], not clamped.

    `head` and `up` are the channels of the blocks at the structure's size and of the U that double it; with
    `noise` False only the head has noise.
    """

    def __init__(
        self, structure: int, texture: int, head: Sequence[int], up: Sequence[int], *, noise: bool = True
    ) -> None:
        super().__init__()
        self.noise = noise
        self.SpatialCodeModulation = CodeModulation(structure, texture)
        channels = [structure, *head, *up]
        for i, (a, b) in enumerate(pairwise(channels)):
            doubling = i >= len(head)
            name = f"UpsamplingResBlock{16 << (i - len(head))}" if doubling else f"HeadResnetBlock{i}"
            self.add_module(name, UpBlock(a, b, texture, up=doubling))
        self.ToRGB = ToRGB(channels[-1], texture)

    def blocks(self) -> list[UpBlock]:
        """The residual blocks in order."""
        return [block for block in self.children() if isinstance(block, UpBlock)]

    def forward(self, structure: Tensor, texture: Tensor, noise: Iterable[Tensor] | None = None) -> Tensor:
        """Codes of any length do; `noise` [1, 1, h, w] of each layer in order, by default fixed ones from a seed."""
        texture = unit(texture)
        x = self.SpatialCodeModulation(unit(structure), texture)
        given = iter(fixed_noise(tuple(x.shape[2:]), self.blocks()) if noise is None else noise)
        for block in self.blocks():
            own: list[Tensor | None] = [next(given), next(given)]
            x = block(x, texture, iter(own if self.noise or not block.up else [None, None]))
        return self.ToRGB(x, texture)


def fixed_noise(size: tuple[int, ...], blocks: Sequence[UpBlock], seed: int = 0) -> Iterator[Tensor]:
    """The same noise each time [1, 1, h, w], two for each block, at its size."""
    rng = torch.Generator().manual_seed(seed)
    for block in blocks:
        size = tuple(2 * side for side in size) if block.up else size
        for _ in range(2):
            yield torch.randn(1, 1, *size, generator=rng)


class SAE(nn.Module):
    """Encoder and generator, frozen."""

    def __init__(self, encoder: Encoder, generator: Generator) -> None:
        super().__init__()
        self.encoder, self.generator = encoder, generator
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], *, noise: bool = True) -> "SAE":
        """From the `E.` and `G.` tensors of a published file; its sizes follow from them, except `noise` (see G).

        Raises: ValueError naming the tensors that do not fit.
        """
        parts = {p: {k.removeprefix(p): t for k, t in tensors.items() if k.startswith(p)} for p in ("E.", "G.")}
        if strange := [name for name in tensors if not name.startswith(("E.", "G."))]:
            raise ValueError(f"not {WHAT}: {state_dicts.some(strange)} are neither of E nor of G")
        return cls(load_encoder(parts["E."]), load_generator(parts["G."], noise=noise))

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """The content's structure [N, 3, H, W] in the style's texture [N, 3, h, w], all in [-1, 1].

        `alpha` 0..1 goes from the content's own texture to the style's.
        Raises: ValueError for sides that are no multiples of 2^halvings, or too small.
        """
        multiple = 2**self.encoder.halvings
        for side in (*content.shape[2:], *style.shape[2:]):
            if side % multiple or side < 7 * multiple:
                raise ValueError(f"a side is {side} px; expected multiples of {multiple}, at least {7 * multiple}")
        structure, own = self.encoder(content)
        texture = torch.lerp(own, self.encoder(style)[1], alpha)
        return self.generator(structure, texture).clamp(-1, 1)


def load_encoder(tensors: Mapping[str, Tensor]) -> Encoder:
    """E with the sizes that its tensors have. Raises: ValueError naming the tensors that do not fit."""
    halvings = sum(k.startswith("DownToSpatialCode.") and k.endswith("skip.Conv.weight") for k in tensors)
    names = ["FromRGB", *(f"DownToSpatialCode.ResBlockDownBy{2**i}.conv2" for i in range(halvings))]
    names += [f"DownToGlobalCode.ConvLayerDownBy{2**i}" for i in range(halvings, halvings + GLOBAL)]
    channels = [state_dicts.width(tensors, f"{name}.Conv.weight", WHAT) for name in names]
    codes = (state_dicts.width(tensors, f"{name}.weight", WHAT) for name in ("ToSpatialCode.1.Conv", "ToGlobalCode.0"))
    return state_dicts.fill(state_dicts.build(Encoder, channels, *codes), tensors, f"{WHAT}'s encoder")


def load_generator(tensors: Mapping[str, Tensor], *, noise: bool = True) -> Generator:
    """G with the sizes that its tensors have. Raises: ValueError naming the tensors that do not fit."""
    head, up = (state_dicts.numbers(tensors, prefix) for prefix in ("HeadResnetBlock", "UpsamplingResBlock"))
    widths = [
        [state_dicts.width(tensors, f"{name}{i}.conv1.conv.weight", WHAT, 1) for i in numbers]
        for name, numbers in (("HeadResnetBlock", head), ("UpsamplingResBlock", up))
    ]
    codes = (state_dicts.width(tensors, "SpatialCodeModulation.scale.weight", WHAT, axis) for axis in (0, 1))
    net = state_dicts.build(Generator, *codes, *widths, noise=noise)
    return state_dicts.fill(net, tensors, f"{WHAT}'s generator")
