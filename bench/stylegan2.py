"""StyleGAN2 at 256 px on this machine: upsampling without inserted zeros, and bf16 against fp32.

Run: `python bench/stylegan2.py`. Weights are random, in the published sizes; latents come from the mapping network.
Times are medians in one process; compare by ratio. PSNR is of images in [-1, 1], so the peak is 2.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.encoders.e4e import Encoder4Editing
from models.generators import stylegan2
from models.generators.stylegan2 import StyleGAN2
from models.generators.stylegan2_layers import ModulatedConv
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from models.stylegan_ops import Pair, upfirdn

RUNS = 5


def inserting(x: Tensor, kernel: Tensor, up: Pair = 1, down: Pair = 1, pad: tuple[int, ...] = (0, 0)) -> Tensor:
    """`upfirdn` by its definition: zeros between the samples, then a convolution of each channel."""
    assert isinstance(up, int)
    n, c, h, w = x.shape
    wide = F.pad(x.reshape(n * c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n * c, 1, h * up, w * up)
    wide = F.pad(wide, (pad[0], pad[-1], pad[0], pad[-1]))
    y = F.conv2d(wide, kernel.flip(0, 1)[None, None], stride=down)
    return y.reshape(n, c, *y.shape[2:])


def inserting_convolution(self: ModulatedConv, x: Tensor, kernel: Tensor) -> Tensor:
    """`ModulatedConv._convolve` with one shared kernel, with zeros inserted where it upsamples."""
    if self.blur is None:
        return F.conv2d(x, kernel[0], padding=kernel.shape[-1] // 2)
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
    wide[..., ::2, ::2] = x
    return F.conv2d(wide, kernel[0].flip(2, 3), padding=2)


@contextmanager
def zeros(convolutions: bool) -> Iterator[None]:
    """Within this context upsample by inserting zeros: in the filters, and with `convolutions` in the convolutions."""
    originals = stylegan2.upfirdn, ModulatedConv._convolve
    stylegan2.upfirdn = inserting
    if convolutions:
        ModulatedConv._convolve = inserting_convolution  # type: ignore[method-assign]
    try:
        yield
    finally:
        stylegan2.upfirdn, ModulatedConv._convolve = originals  # type: ignore[method-assign]


def seconds(work: Callable[[], object]) -> float:
    """The seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def psnr(a: Tensor, b: Tensor) -> float:
    """The PSNR of two images in [-1, 1], in dB."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean()))


def randomise(net: nn.Module, gain: float = 1.0) -> None:
    """Give convolutions He weights, and batch norms weights that keep signals near unit size."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.mul_(gain)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)


@torch.no_grad()
def main() -> None:
    """Print both tables."""
    torch.manual_seed(0)
    net = StyleGAN2(256).eval()
    w = net.map(torch.randn(1, 512))
    span = net(w).std()
    for module in (net.to_rgb1, *net.to_rgbs):  # images with a std of 0.5, as photos have in [-1, 1]
        module.conv.weight.mul_(0.5 / span)
    ways: dict[str, Callable[[], Tensor]] = {"transposed convolutions": lambda: net(w)}
    outputs, times = {"transposed convolutions": net(w)}, {}
    for name, convolutions in (("zeros inserted for the filters", False), ("zeros inserted everywhere", True)):

        def work(convolutions: bool = convolutions) -> Tensor:
            with zeros(convolutions):
                return net(w)

        ways[name] = work
        outputs[name] = work()
    for name in ways:
        assert torch.allclose(outputs[name], outputs["transposed convolutions"], atol=1e-3)
        times[name] = []
    for _ in range(RUNS):
        for name, way in ways.items():
            times[name].append(seconds(way))
    base = median(times["transposed convolutions"])
    print("| StyleGAN2-256 forward, batch 1 | seconds | ratio |\n|---|---|---|")
    for name, measured in times.items():
        print(f"| {name} | {median(measured):.3f} | {median(measured) / base:.2f} |")
    x, kernel = torch.randn(2, 128, 64, 64), net.to_rgbs[0].upsample.kernel
    quick, slow = (
        median(seconds(lambda f=f: f(x, kernel, 2, 1, (2, 1))) for _ in range(RUNS)) for f in (upfirdn, inserting)
    )
    print(f"| 2 x 128 x 64 x 64 upsampled twofold: transposed | {quick:.4f} | 1.00 |")
    print(f"| 2 x 128 x 64 x 64 upsampled twofold: zeros inserted | {slow:.4f} | {slow / quick:.2f} |")

    print("\n| bf16 autocast against fp32 | PSNR of the image, dB |\n|---|---|")
    reference = net(w)
    with torch.autocast("cpu", torch.bfloat16):
        print(f"| generator | {psnr(net(w), reference):.1f} |")
    encoder = Encoder4Editing(14).eval()
    randomise(encoder)
    x = F.interpolate(torch.rand(1, 3, 16, 16) * 2 - 1, (256, 256), mode="bicubic").clamp(-1, 1)
    encoder.latent_avg = w
    scale = 0.5 / encoder.codes(x).std()  # offsets with a std of 0.5, as trained encoders give
    for head in encoder.styles:
        head.linear.weight.mul_(scale)
        head.linear.bias.mul_(scale)
    reference = net(encoder(x))
    with torch.autocast("cpu", torch.bfloat16):
        latent = encoder(x)
        both = net(latent)
    print(f"| e4e, image of its latents by the fp32 generator | {psnr(net(latent.float()), reference):.1f} |")
    print(f"| e4e and generator | {psnr(both, reference):.1f} |")
    del encoder
    hyper = RegionHyperStyle(net.layer_table()).eval()
    randomise(hyper)
    assert hyper.net.shared_weight_hypernet is not None
    hyper.net.shared_weight_hypernet.w1.normal_(0, 0.01)
    hyper.fusion.weight[:, 512:].normal_(0, 0.05)
    codes, region = F.normalize(torch.randn(1, 4, 256), dim=-1), torch.randint(0, 3, (1, 256, 256)).byte()
    deltas = [d * (0.1 / d.std()).clamp(max=1) for d in hyper(x, x, codes, region)]
    factors = [float(d.std() / e.std()) for d, e in zip(deltas, hyper(x, x, codes, region), strict=True)]
    reference = net(w, deltas)
    with torch.autocast("cpu", torch.bfloat16):
        rough = [d * f for d, f in zip(hyper(x, x, codes, region), factors, strict=True)]
        both = net(w, rough)
    alone = psnr(net(w, [d.float() for d in rough]), reference)
    print(f"| hypernetwork, its deltas (std 0.1) in the fp32 generator | {alone:.1f} |")
    print(f"| hypernetwork and generator | {psnr(both, reference):.1f} |")


if __name__ == "__main__":
    main()
