"""MobileStyleGAN (Belousov 2021): the portable profile's frozen generator, built from its published tensors.

Faces have FFHQ's framing and the mapping network is FFHQ StyleGAN2's, so latents have the 18 W+ layers of a 1024 px
generator. The wavelet head gives 1024 px. `Head256`, fitted by this project on the features at 128 px, gives 256 px for
about half the multiply-adds.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import recompute
from models.generators.haar import inverse_haar
from models.generators.interface import FULL_UNTIL, Deltas, LayerEntry, moved
from models.generators.region_weights import RegionWeights

NUM_WS = 18
WIDTHS = (512, 512, 512, 512, 256, 128, 64)
SLOPE = 0.2


def w_layer_of(layer: str) -> int:
    """The W+ layer of a modulated layer: conv1 0, layers.i up and conv1 2i+1, conv2 2i+2, image heads last."""
    if layer == "conv1":
        return 0
    if layer.startswith("layers."):
        _, i, part = layer.split(".")
        return 2 * int(i) + (2 if part == "conv2" else 1)
    return {"to_img": 17, "head.conv1": 11, "head.conv2": 12, "head.to_img": 13}[layer]


def modulated_kernel(weight: Tensor, delta: Tensor) -> Tensor:
    """The kernels weight * (1 + delta), one kernel per sample (paper Eq. 2; HyperStyle's relative deltas)."""
    return moved(weight.unsqueeze(0), delta)


class Modulation(nn.Module):
    """Affine map of a latent [N, 512] to per-channel factors [N, C, 1, 1]."""

    def __init__(self, channels: int, latent: int = 512) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, latent))
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        """Factors [N, C, 1, 1] of latents w [N, 512]."""
        return F.linear(w, self.weight, self.bias)[:, :, None, None]


def multiply(x: Tensor, kernels: Tensor, region_weights: RegionWeights | None) -> Tensor:
    """Multiply the channels [N, in, H, W] by kernels [N, out, in], or per region by [N, regions, out, in]."""
    if region_weights is not None:
        return region_weights.convolve(x, kernels)
    return torch.bmm(kernels, x.flatten(2)).unflatten(2, x.shape[2:])


def pointwise(x: Tensor, weight: Tensor, delta: Tensor | None, region_weights: RegionWeights | None = None) -> Tensor:
    """Apply a 1x1 convolution whose kernel may differ per sample: delta broadcasts to [N, out, in].

    With `region_weights` it may differ per region as well: delta [N, regions, out, in].
    """
    if delta is None:
        return F.conv2d(x, weight[:, :, None, None])
    return multiply(x, modulated_kernel(weight, delta), region_weights)


class SeparableConv(nn.Module):
    """Modulated depthwise 3x3, pointwise, constant noise, bias and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, resolution: int, noise: bool = True) -> None:
        super().__init__()
        self.modulation = Modulation(inputs)
        self.depthwise = nn.Parameter(torch.zeros(inputs, 1, 3, 3))
        self.pointwise = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.noise = nn.Parameter(torch.zeros(1, 1, resolution, resolution)) if noise else None

    def forward(
        self, x: Tensor, w: Tensor, delta: Tensor | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Map x [N, in, H, W] by latents w [N, 512]; delta broadcasts to [N, out, in]."""
        x = F.conv2d(x * self.modulation(w), self.depthwise, padding=1, groups=x.shape[1])
        x = pointwise(x, self.pointwise, delta, region_weights) + self.bias
        if self.noise is not None:
            x = x + self.noise
        return F.leaky_relu(x, SLOPE)


class FirstConv(nn.Module):
    """Modulated dense 3x3 convolution of the learned 4x4 constant."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = Modulation(width)
        self.weight = nn.Parameter(torch.zeros(width, width, 3, 3))
        self.noise = nn.Parameter(torch.zeros(1, 1, 4, 4))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(
        self, x: Tensor, w: Tensor, delta: Tensor | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Map x [N, width, 4, 4] by latents w [N, 512]; delta broadcasts to [N, width, width]."""
        x = x * self.modulation(w)
        if delta is None:
            x = F.conv2d(x, self.weight, padding=1)
        else:
            columns = F.unfold(x, 3, padding=1).unflatten(2, x.shape[2:])
            x = multiply(columns, modulated_kernel(self.weight, delta[..., None, None]).flatten(-3), region_weights)
        return F.leaky_relu(x + self.noise + self.bias, SLOPE)


class Block(nn.Module):
    """One resolution block: modulated inverse Haar (channels / 4), then two separable convolutions."""

    def __init__(self, inputs: int, outputs: int, resolution: int) -> None:
        super().__init__()
        self.up, self.full = Modulation(inputs), resolution <= FULL_UNTIL
        self.conv1 = SeparableConv(inputs // 4, outputs, resolution)
        self.conv2 = SeparableConv(outputs, outputs, resolution)

    def forward(
        self, x: Tensor, w: Sequence[Tensor], deltas: Deltas, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Double the sides; `w` holds the latents [N, 512] of up, conv1 and conv2, `deltas` go to the convolutions."""
        with recompute.full_precision(x, self.full):
            x = inverse_haar(x * self.up(w[0]))
            return self.conv2(self.conv1(x, w[1], deltas[0], region_weights), w[2], deltas[1], region_weights)


class ToImage(nn.Module):
    """Modulated pointwise convolution to 12 wavelet channels, then one inverse Haar level."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.modulation = Modulation(inputs)
        self.weight = nn.Parameter(torch.zeros(12, inputs))
        self.bias = nn.Parameter(torch.zeros(1, 12, 1, 1))

    def forward(
        self, x: Tensor, w: Tensor, delta: Tensor | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Map features x [N, in, H, W] to images [N, 3, 2H, 2W] by latents w [N, 512]."""
        with recompute.full_precision(x):
            x = x.to(self.weight.dtype) * self.modulation(w)
            return inverse_haar(pointwise(x, self.weight, delta, region_weights) + self.bias)


class Head256(nn.Module):
    """Image head for the 256 px cut: features [N, 256, 128, 128] -> images [N, 3, 256, 256], fitted by `fit-head`."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.conv1 = SeparableConv(WIDTHS[4], width, 128, noise=False)
        self.conv2 = SeparableConv(width, width, 128, noise=False)
        self.to_img = ToImage(width)

    def forward(
        self, x: Tensor, w: Tensor, deltas: Deltas = (None, None, None), region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Features and a W+ latent [N, 18, 512] to images."""
        x = self.conv1(x, w[:, w_layer_of("head.conv1")], deltas[0], region_weights)
        x = self.conv2(x, w[:, w_layer_of("head.conv2")], deltas[1], region_weights)
        return self.to_img(x, w[:, w_layer_of("head.to_img")], deltas[2], region_weights)


class MobileStyleGAN(nn.Module):
    """The generator: mapping network, synthesis to 1024 px, or to 256 px through the fitted head.

    Images are RGB in about [-1, 1]. Raises: ValueError when `size` is neither 256 nor 1024.
    """

    wavelet = True

    def __init__(self, size: int = 256) -> None:
        super().__init__()
        if size not in (256, 1024):
            raise ValueError(f"generator size is {size}; MobileStyleGAN gives 256 or 1024")
        self.size, self.num_ws, self.checkpointing = size, NUM_WS, False
        self.mapping = nn.ModuleList(nn.Linear(512, 512) for _ in range(8))
        self.constant = nn.Parameter(torch.zeros(1, 512, 4, 4))
        self.conv1 = FirstConv(512)
        depth = 7 if size == 1024 else 5
        inputs = (512, *WIDTHS)
        self.layers = nn.ModuleList(Block(inputs[i], WIDTHS[i], 2 ** (i + 3)) for i in range(depth))
        self.head: Head256 | None = Head256() if size == 256 else None
        self.to_img: ToImage | None = ToImage(64) if size == 1024 else None
        self.requires_grad_(False)

    @classmethod
    def load(cls, tensors: dict[str, Tensor], head: dict[str, Tensor] | None = None) -> "MobileStyleGAN":
        """Build the 1024 px generator, or with the fitted head's tensors the 256 px cut."""
        net = cls(256 if head else 1024)
        state = {name: t.float() for name, t in tensors.items()}
        if head:
            state |= {f"head.{name}": t.float() for name, t in head.items()}
        net.load_state_dict({n: state[_published(n)].reshape(t.shape) for n, t in net.state_dict().items()})
        return net.eval()

    def published(self, source: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What `load` takes: the generator's tensors, and the fitted head's ({} at 1024 px).

        `source` is what this network was loaded from. It gives the layout, and the tensors that the 256 px cut lacks.
        """
        generator, head = {name: t.float() for name, t in source.items()}, {}
        for name, tensor in self.state_dict().items():
            if name.startswith("head."):
                head[name.removeprefix("head.")] = tensor
            else:
                generator[_published(name)] = tensor.reshape(source[_published(name)].shape)
        return generator, head

    def map(self, z: Tensor) -> Tensor:
        """Map z [N, 512] to w [N, 512] (StyleGAN2's normalise, then eight layers)."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            x = F.leaky_relu(layer(x), SLOPE)
        return x

    def mean_latent(self, samples: int = 20000, seed: int = 0) -> Tensor:
        """The mean of `samples` mapped z, [512]; the same for the same seed."""
        z = torch.randn(samples, 512, generator=torch.Generator().manual_seed(seed)).to(self.constant.device)
        return self.map(z).mean(0)

    def layer_table(self) -> list[LayerEntry]:
        """List the kernels that weight deltas apply to, in the order of `deltas`."""
        rows: list[tuple[str, int, str, Tensor]] = [("conv1", 4, "conv3x3", self.conv1.weight)]
        for i, block in enumerate(self.layers):
            for part in ("conv1", "conv2"):
                rows.append((f"layers.{i}.{part}", 2 ** (i + 3), "pointwise", getattr(block, part).pointwise))
        if self.head is not None:
            rows.append(("head.conv1", 128, "pointwise", self.head.conv1.pointwise))
            rows.append(("head.conv2", 128, "pointwise", self.head.conv2.pointwise))
            rows.append(("head.to_img", 256, "to_img", self.head.to_img.weight))
        if self.to_img is not None:
            rows.append(("to_img", 1024, "to_img", self.to_img.weight))
        return [LayerEntry(i, name, res, kind, tuple(t.shape)) for i, (name, res, kind, t) in enumerate(rows)]

    def features(
        self,
        latent: Tensor,
        deltas: Deltas | None = None,
        depth: int | None = None,
        region_weights: RegionWeights | None = None,
    ) -> Tensor:
        """Features after the first `depth` resolution blocks (None: all), of latents [N, 512] or [N, 18, 512]."""
        w = latent[:, None].expand(-1, NUM_WS, -1) if latent.ndim == 2 else latent
        d = list(deltas) if deltas is not None else [None] * (1 + 2 * len(self.layers))
        x = self.constant.expand(w.shape[0], -1, -1, -1)
        with recompute.full_precision(x):
            x = self.conv1(x, w[:, 0], d[0], region_weights)
        for i, block in enumerate(self.layers[:depth]):
            num_ws = [w[:, w_layer_of(f"layers.{i}.{part}")] for part in ("up", "conv1", "conv2")]
            x = recompute.run(block, x, num_ws, d[2 * i + 1 : 2 * i + 3], region_weights, again=self.checkpointing)
        return x

    def forward(
        self, latent: Tensor, deltas: Deltas | None = None, region_weights: RegionWeights | None = None
    ) -> Tensor:
        """Generate images [N, 3, size, size]; deltas follow `layer_table`, each None or broadcast to [N, out, in].

        With `region_weights` they are [N, regions, out, in], and each region's deltas act where it lies.
        """
        x = self.features(latent, deltas, region_weights=region_weights)
        w = latent[:, None].expand(-1, NUM_WS, -1) if latent.ndim == 2 else latent
        last = list(deltas[1 + 2 * len(self.layers) :]) if deltas is not None else [None] * 3
        if self.head is not None:
            return recompute.run(self.head, x, w, last, region_weights, again=self.checkpointing)
        if self.to_img is None:
            raise RuntimeError("generator has no image head")
        return self.to_img(x, w[:, w_layer_of("to_img")], last[0], region_weights)


def _published(name: str) -> str:
    """Map a parameter's name to the converted file's, where `layers.i.up` keeps its modulation one level deeper."""
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "up":
        return ".".join([*parts[:3], "modulation", parts[3]])
    return name
