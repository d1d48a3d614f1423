"""StyleGAN2 (Karras et al. 2020): the paper's frozen generator, in the layout of the published checkpoints.

Modules carry the published names, so the state dict is the file's. Size, channels and mapping depth are inferred from
the tensors. A style scales a convolution's input and the demodulation its output. This equals modulating the kernel,
but needs a kernel per sample only for weight deltas.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import recompute, state_dicts
from models.generators.interface import FULL_UNTIL, Deltas, LayerEntry
from models.generators.region_weights import RegionWeights
from models.generators.stylegan2_layers import Constant, PixelNorm, StyledConv, ToRGB
from models.stylegan_ops import LATENT, EqualLinear

CONSTANT = 512  # channels up to 32 px, whatever the multiplier
SIZES = tuple(2**i for i in range(3, 12))


def channels(resolution: int, multiplier: float) -> int:
    """Feature channels at a resolution; the multiplier acts from 64 px on, and if less than 1 also below."""
    wide = int(16384 * multiplier) // resolution
    return wide if resolution > 32 else min(CONSTANT, wide)


def layer_table(size: int = 1024, multiplier: float = 2) -> list[LayerEntry]:
    """The table of a generator of that size: conv1, to_rgb1, then up, conv, to_rgb per resolution block."""
    rows: list[tuple[str, int, str, tuple[int, int]]] = [
        ("conv1", 4, "conv3x3", (CONSTANT, CONSTANT)),
        ("to_rgb1", 4, "to_img", (3, CONSTANT)),
    ]
    inputs = CONSTANT
    for i in range(int(math.log2(size)) - 2):
        side = 8 << i
        width = channels(side, multiplier)
        rows += [
            (f"convs.{2 * i}", side, "conv3x3", (width, inputs)),
            (f"convs.{2 * i + 1}", side, "conv3x3", (width, width)),
            (f"to_rgbs.{i}", side, "to_img", (3, width)),
        ]
        inputs = width
    return [
        LayerEntry(i, name, side, kind, (*shape, *((3, 3) if kind == "conv3x3" else (1, 1))))
        for i, (name, side, kind, shape) in enumerate(rows)
    ]


class StyleGAN2(nn.Module):
    """The generator of `native` px; images are area-averaged to `size`.

    Of the `num_ws` W+ layers conv1 takes 0 and to_rgb1 1; resolution block b takes the next two, and its to_rgb the one
    after. `latent_avg` [512] or [num_ws, 512] is the file's, if it has one.
    """

    wavelet = False
    latent_avg: Tensor | None

    def __init__(self, native: int, multiplier: float = 2, depth: int = 8, *, noises: bool = True) -> None:
        super().__init__()
        self.native = self.size = native
        self.multiplier, self.latent_avg, self.checkpointing = multiplier, None, False
        self.num_ws = 2 * int(math.log2(native)) - 2
        mapping = (EqualLinear(LATENT, LATENT, active=True, rate=0.01) for _ in range(depth))
        self.style = nn.Sequential(PixelNorm(), *mapping)
        self.input = Constant(CONSTANT)
        self.conv1 = StyledConv(CONSTANT, CONSTANT)
        self.to_rgb1 = ToRGB(CONSTANT, up=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        inputs = CONSTANT
        for side in (8 << i for i in range(int(math.log2(native)) - 2)):
            width = channels(side, multiplier)
            self.convs.extend((StyledConv(inputs, width, up=True), StyledConv(width, width)))
            self.to_rgbs.append(ToRGB(width))
            inputs = width
        for i in range(len(self.convs) + 1):
            side = 2 ** ((i + 5) // 2)
            self.noises.register_buffer(f"noise_{i}", torch.zeros(1, 1, side, side), persistent=noises)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], *, size: int | None = None, seed: int = 0) -> "StyleGAN2":
        """Build the frozen generator from a published state dict (and `latent_avg`, if it is there).

        `size`: images are pooled to it. Without noise maps in the file, they are sampled from `seed`.
        Raises: ValueError, in one line, when the tensors are not those of a StyleGAN2 generator or do not fit `size`.
        """
        state = dict(tensors)
        average = state.pop("latent_avg", None)
        native, multiplier, depth = measure(state)
        what = f"a {native} px StyleGAN2 generator of channel multiplier {multiplier:g} and {depth} mapping layers"
        noises = any(name.startswith("noises.") for name in state)
        net = state_dicts.fill(state_dicts.build(cls, native, multiplier, depth, noises=noises), state, what)
        if not noises:
            for i in range(len(net.convs) + 1):
                side = 2 ** ((i + 5) // 2)
                noise = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(seed * 1000 + i))
                setattr(net.noises, f"noise_{i}", noise)
        if average is not None:
            if average.numel() not in (LATENT, net.num_ws * LATENT):
                raise ValueError(f"not {what}: latent_avg is {list(average.shape)}; expected 512 or {net.num_ws} x 512")
            net.latent_avg = average.float().reshape(-1, LATENT).squeeze(0)
        if size is not None:
            if size > native or native % size:
                raise ValueError(f"{what} cannot give images of {size} px; expected {native} or a half, quarter…")
            net.size = size
        return net

    def map(self, z: Tensor) -> Tensor:
        """Map z [N, 512] to w [N, 512]."""
        return self.style(z)

    def truncate(self, w: Tensor, psi: float, centre: Tensor | None = None) -> Tensor:
        """Move w towards `centre`, by default the file's average latent. Raises: ValueError when there is none."""
        centre = self.latent_avg if centre is None else centre
        if centre is None:
            raise ValueError("truncation needs a centre: the file has no latent_avg; give one, as from mean_latent")
        centre = centre.to(w.device)
        return centre + psi * (w - centre)

    @torch.no_grad()
    def mean_latent(self, samples: int = 100_000, seed: int = 0) -> Tensor:
        """The mean of `samples` mapped z, [512]; the same for the same seed."""
        rng, device = torch.Generator().manual_seed(seed), self.input.input.device
        total = torch.zeros(LATENT, dtype=torch.float64, device=device)
        for start in range(0, samples, 2000):
            z = torch.randn(min(2000, samples - start), LATENT, generator=rng).to(device)
            total = total + self.map(z).double().sum(0)
        return (total / samples).float()

    def layer_table(self) -> list[LayerEntry]:
        """The kernels that weight deltas apply to, in the order of `deltas`."""
        return layer_table(self.native, self.multiplier)

    def forward(
        self,
        latent: Tensor,
        deltas: Deltas | None = None,
        region_weights: RegionWeights | None = None,
        noise: str | Sequence[Tensor] = "fixed",
    ) -> Tensor:
        """Images [N, 3, size, size] of latents [N, 512] (W) or [N, num_ws, 512] (W+).

        Deltas follow `layer_table`, each None, [N, out, in] or [N, out, in, k, k]; with `region_weights` the regions
        come after N. Noise is "fixed" (the buffers), "random", or one map [1 or N, 1, r, r] per convolution.
        Raises: ValueError for another number of latents or deltas.
        """
        w = latent[:, None].expand(-1, self.num_ws, -1) if latent.ndim == 2 else latent
        if w.shape[1] != self.num_ws:
            raise ValueError(f"{w.shape[1]} latents for a generator of {self.native} px; expected {self.num_ws}")
        rows = 2 + 3 * len(self.to_rgbs)
        d = list(deltas) if deltas is not None else [None] * rows
        if len(d) != rows:
            raise ValueError(f"{len(d)} deltas for a generator of {self.native} px; expected {rows}")
        maps = self._noise(noise, w)
        x = self.input.input.expand(len(w), -1, -1, -1)
        with recompute.full_precision(x):
            x = self.conv1(x, w[:, 0], maps[0], d[0], region_weights)
            y = self.to_rgb1(x, w[:, 1], d[1], region_weights)
        for b in range(len(self.to_rgbs)):
            pair = slice(1 + 2 * b, 3 + 2 * b)
            x, y = recompute.run(
                self._block,
                b,
                x,
                y,
                w[:, 1 + 2 * b : 4 + 2 * b],
                maps[pair],
                d[2 + 3 * b : 5 + 3 * b],
                region_weights,
                again=self.checkpointing,
            )
        return y if self.size == self.native else F.avg_pool2d(y, self.native // self.size)

    def _block(
        self,
        b: int,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        maps: Sequence[Tensor],
        d: Deltas,
        region_weights: RegionWeights | None,
    ) -> tuple[Tensor, Tensor]:
        """Features and image of resolution block b from those at half its size."""
        with recompute.full_precision(x, 8 << b <= FULL_UNTIL):
            for j in (0, 1):
                x = self.convs[2 * b + j](x, w[:, j], maps[j], d[j], region_weights)
            return x, self.to_rgbs[b](x, w[:, 2], d[2], region_weights, y)

    def _noise(self, noise: str | Sequence[Tensor], w: Tensor) -> list[Tensor]:
        count = len(self.convs) + 1
        if noise == "random":
            sides = [2 ** ((i + 5) // 2) for i in range(count)]
            return [torch.randn(len(w), 1, side, side, device=w.device) for side in sides]
        if noise == "fixed":
            return [getattr(self.noises, f"noise_{i}") for i in range(count)]
        if isinstance(noise, str) or len(noise) != count:
            raise ValueError(
                f"noise is {noise if isinstance(noise, str) else len(noise)!r}; "
                f"expected 'fixed', 'random' or {count} maps"
            )
        return list(noise)


def measure(tensors: Mapping[str, Tensor]) -> tuple[int, float, int]:
    """Size, channel multiplier and mapping depth of a published generator's state dict.

    Raises: ValueError when the tensors are not those of one.
    """
    blocks, depth = len(state_dicts.numbers(tensors, "to_rgbs.")), len(state_dicts.numbers(tensors, "style."))
    native = 4 << blocks
    if native not in SIZES or not depth or "input.input" not in tensors:
        raise ValueError(
            f"not a StyleGAN2 generator: {blocks} resolution blocks and {depth} mapping layers among "
            f"{len(tensors)} tensors ({state_dicts.some(tensors)}); expected to_rgbs., style. and input."
        )
    last = tensors.get(f"to_rgbs.{blocks - 1}.conv.weight")
    if last is None or last.ndim != 5 or (native <= 32 and last.shape[2] == CONSTANT):
        return native, 2, depth
    multiplier = last.shape[2] * native / 16384
    if multiplier not in (0.25, 0.5, 1, 2, 4):
        raise ValueError(
            f"not a {native} px StyleGAN2 generator: {last.shape[2]} channels at {native} px; expected "
            f"{16384 // native} times a channel multiplier of 0.25, 0.5, 1, 2 or 4"
        )
    return native, multiplier, depth
