"""MobileStyleGAN's 256 px cut for one latent and one region map, with gradients to weight deltas.

For refinement, and for training on a CPU.

The same numbers as `MobileStyleGAN.forward` with `region_weights`, about twice as fast to differentiate on a CPU (four
times in bfloat16 where the processor has it): features are rows [pixels, channels], each region multiplies its own
rows, only places of several regions are summed, and what comes before the first moving layer is computed once.
`renderer` chooses it where it fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.generators.interface import Generator
from models.generators.latent_renderer import LatentRenderer, _Conv, _image, _rows, _Up, _wavelet_order
from models.generators.mobilestylegan import SLOPE, MobileStyleGAN, w_layer_of
from models.generators.region_weights import RegionWeights


@dataclass(frozen=True)
class _Group:
    """Rows of one region: first its own, `own` many, then those it shares: their place among all shared ones, share."""

    region: int
    where: Tensor
    own: int
    among: Tensor
    share: Tensor


@dataclass(frozen=True)
class _Layout:
    """The groups of a resolution, and the rows that several regions share."""

    groups: list[_Group]
    mixed: Tensor

    @classmethod
    def of(cls, region_weights: RegionWeights, side: int, device: torch.device) -> "_Layout":
        """Of the first region map of `region_weights`, for rows on `device`."""
        shares = region_weights.weights(side)[0].flatten(1).cpu()
        mixed = ((shares > 0).sum(0) > 1).nonzero()[:, 0]
        number = torch.zeros(shares.shape[1], dtype=torch.long)
        number[mixed] = torch.arange(len(mixed))
        groups = []
        for region, share in enumerate(shares):
            own, shared = (share == 1).nonzero()[:, 0], ((share > 0) & (share < 1)).nonzero()[:, 0]
            if len(own) + len(shared):
                where, among, part = torch.cat([own, shared]), number[shared], share[shared][:, None]
                groups.append(_Group(region, where.to(device), len(own), among.to(device), part.to(device)))
        return cls(groups, mixed.to(device))

    def join(self, parts: Sequence[Tensor], weighted: bool) -> Tensor:
        """One row a place from the groups' rows; where they share, their sum, `weighted` by the shares or as it is."""
        out = parts[0].new_empty(sum(g.own for g in self.groups) + len(self.mixed), parts[0].shape[1])
        total = torch.zeros(len(self.mixed), out.shape[1], device=out.device)
        for group, part in zip(self.groups, parts, strict=True):
            _wide(out).index_copy_(0, group.where[: group.own], _wide(part[: group.own]))
            shared = part[group.own :].float()
            total.index_add_(0, group.among, shared * group.share if weighted else shared)
        _wide(out).index_copy_(0, self.mixed, _wide(total.to(out.dtype)))
        return out


def _wide(rows: Tensor) -> Tensor:
    """The same memory as fewer, wider numbers where it fits: a CPU copies rows of them in a third of the time."""
    fits = rows.device.type == "cpu" and rows.shape[1] * rows.element_size() % 16 == 0
    return rows.view(torch.complex128) if fits else rows


class _Pointwise(torch.autograd.Function):
    """Rows times their regions' kernels [regions, out, in], bias, noise, LeakyReLU unless `plain`."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        rows: Tensor,
        kernels: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        layout: _Layout,
        plain: bool,
    ) -> Tensor:
        gathered = [rows.index_select(0, group.where) for group in layout.groups]
        out = layout.join(
            [torch.addmm(bias, x, kernels[group.region].T) for group, x in zip(layout.groups, gathered, strict=True)],
            weighted=True,
        )
        if noise is not None:
            out.add_(noise)
        if not plain:
            F.leaky_relu_(out, SLOPE)
        ctx.save_for_backward(kernels, out, *gathered)
        ctx.layout, ctx.plain = layout, plain
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:  # type: ignore[no-untyped-def]
        kernels, out, *gathered = ctx.saved_tensors
        if not ctx.plain:
            grad = torch.ops.aten.leaky_relu_backward(grad, out, SLOPE, True)
        moved = torch.zeros_like(kernels) if ctx.needs_input_grad[1] else None
        parts = []
        for group, x in zip(ctx.layout.groups, gathered, strict=True):
            own = grad.index_select(0, group.where)
            own[group.own :] *= group.share.to(own.dtype)
            if moved is not None:
                torch.mm(own.T, x, out=moved[group.region])
            if ctx.needs_input_grad[0]:
                parts.append(own @ kernels[group.region])
        return (ctx.layout.join(parts, weighted=False) if parts else None), moved, None, None, None, None


class _Kernels(torch.autograd.Function):
    """The kernels [regions, out, in] of deltas [1, regions, out, in]: `kernel` [out, in] times 1 + delta, in `dtype`.

    `order` is that of the kernel's outputs where it is not the deltas'.
    """

    @staticmethod
    def forward(ctx, deltas: Tensor, kernel: Tensor, order: Tensor | None, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.kernel, ctx.order = kernel, order
        delta = deltas[0] if order is None else deltas[0].index_select(1, order)
        return (1 + delta).mul_(kernel).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        into = grad * ctx.kernel
        return (into if ctx.order is None else into.index_select(1, ctx.order.argsort()))[None], None, None, None


class _Depthwise(torch.autograd.Function):
    """A depthwise 3x3 convolution of rows by a frozen kernel [C, 1, 3, 3]."""

    @staticmethod
    def forward(ctx, rows: Tensor, kernel: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.kernel = kernel
        return _rows(F.conv2d(_image(rows), kernel, padding=1, groups=rows.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        turned = ctx.kernel.flip(2, 3).contiguous(memory_format=torch.channels_last)
        return _rows(F.conv2d(_image(grad), turned, padding=1, groups=grad.shape[1])), None


class RegionRenderer:
    """Renders deltas of one latent [1, 18, 512] at one region map's places; those of rows from `start` on may move.

    `still` are the deltas of all rows [1, regions, out, in]; of them those before `start` (at least 1) are used, once.
    """

    def __init__(
        self, rows: LatentRenderer, latent: Tensor, region_weights: RegionWeights, still: Sequence[Tensor], start: int
    ) -> None:
        self.rows, self.region_weights, self.latent = rows, region_weights, latent
        self.start, self.dtype = max(1, start), rows.dtype
        self.still = [delta.detach() for delta in still[: self.start]]
        self.depth = min((self.start - 1) // 2, len(rows.blocks))
        self._layouts: dict[int, _Layout] = {}
        self._kernels: dict[int, Tensor] = {}
        with torch.no_grad():
            early = rows.generator.features(latent, [*still], depth=self.depth, region_weights=region_weights)
        # The head reads channels in the published order, a block in that of its upsampling.
        ordered = _rows(early)
        if self.depth < len(rows.blocks):
            ordered = ordered[:, _wavelet_order(early.shape[1], early.device)]
        self.early = ordered.to(self.dtype).contiguous()

    def __call__(self, deltas: Sequence[Tensor]) -> Tensor:
        """The image [1, 3, 256, 256], float32 in about [-1, 1], of the deltas of all rows."""
        deltas = [*self.still, *deltas[self.start :]]
        rows, index = self.early, 1 + 2 * self.depth
        for up, slot, order, *convs in self.rows.blocks[self.depth :]:
            rows = _Up.apply(rows, up(self.latent[:, slot]).flatten()[order] * 0.5)
            for conv in convs:
                rows = self._separable(conv, rows, deltas[index], index)
                index += 1
        for conv in self.rows.head:
            rows = self._separable(conv, rows, deltas[index], index)
            index += 1
        image = self.rows.to_image
        order = _wavelet_order(len(image.weight), rows.device)
        weight = (image.weight * image.modulation(self.latent[:, w_layer_of("head.to_img")]).flatten())[order]
        kernels = _Kernels.apply(deltas[index], weight, order, self.dtype)
        rows = _Pointwise.apply(
            rows, kernels, image.bias.flatten()[order].to(self.dtype), None, self._layout(len(rows)), True
        )
        return _image(_Up.apply(rows.float(), torch.full((len(order),), 0.5, device=rows.device)))

    def _separable(self, conv: _Conv, rows: Tensor, delta: Tensor, index: int) -> Tensor:
        if index not in self._kernels:  # modulation commutes with a depthwise kernel: it is folded in once
            factors = conv.modulation(self.latent[:, conv.slot]).view(-1, 1, 1, 1)
            self._kernels[index] = (
                (conv.depthwise * factors).to(self.dtype).contiguous(memory_format=torch.channels_last)
            )
        seen = _Depthwise.apply(rows, self._kernels[index])
        kernels = _Kernels.apply(delta, conv.kernel, conv.order, self.dtype)
        return _Pointwise.apply(seen, kernels, conv.bias, conv.noise, self._layout(len(rows)), False)

    def _layout(self, count: int) -> _Layout:
        if count not in self._layouts:
            self._layouts[count] = _Layout.of(self.region_weights, round(count**0.5), self.early.device)
        return self._layouts[count]


def rows_of(generator: Generator, dtype: torch.dtype = torch.float32) -> LatentRenderer | None:
    """What `RegionRenderer` needs of a generator, made once; None for a generator that it does not know."""
    if isinstance(generator, MobileStyleGAN) and generator.head is not None:
        return LatentRenderer(generator, dtype)
    return None


def renderer(
    generator: Generator,
    rows: LatentRenderer | None,
    latent: Tensor,
    region_weights: RegionWeights | None,
    still: Sequence[Tensor],
    start: int,
) -> Callable[[Sequence[Tensor]], Tensor]:
    """What renders deltas of one latent: `RegionRenderer` with `rows` where deltas act by region, else the generator.

    Only deltas of rows from `start` on have to get gradients.
    """
    if rows is None or region_weights is None:
        return lambda deltas: generator(latent, [*deltas], region_weights)
    return RegionRenderer(rows, latent, region_weights, still, start)
