"""Generators under bfloat16 autocast: small weight deltas arrive, and the image is nearly that of float32."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.generators.interface import Generator, moved
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.stylegan2 import StyleGAN2
from models.generators.stylegan2_layers import ToRGB
from pipeline import weights


def stylegan2() -> StyleGAN2:
    torch.manual_seed(0)
    net = StyleGAN2(64, 0.5).requires_grad_(False)
    for layer in (net.to_rgb1, *net.to_rgbs):
        layer.conv.weight.mul_(0.2)  # images within about [-1, 1]
    return net


def mobilestylegan() -> MobileStyleGAN:
    return MobileStyleGAN.load(weights.tensors("mobilestylegan"), weights.tensors("head256"))


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a.float().clamp(-1, 1) - b.clamp(-1, 1)).square().mean()))


@pytest.mark.parametrize("make", [stylegan2, pytest.param(mobilestylegan, marks=pytest.mark.weights)])
@torch.no_grad()
def test_small_deltas_give_the_image_of_float32(make: type[Generator]) -> None:
    net, rng = make(), torch.Generator().manual_seed(0)
    w = net.map(torch.randn(1, 512, generator=rng))
    deltas = [0.001 * torch.randn(1, *row.shape[:2], generator=rng) for row in net.layer_table()]
    wide = net(w, deltas)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = net(w, deltas)
    assert narrow.dtype is torch.float32 and psnr(narrow, wide) > 52


@pytest.mark.parametrize("size", [0.0005, 0.001, 0.005])
def test_a_kernel_moves_by_its_delta_whatever_type_the_delta_has(size: float) -> None:
    kernel = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    change = moved(kernel, torch.full((1, 1), size).bfloat16()) / kernel - 1
    torch.testing.assert_close(change, torch.full_like(change, size), rtol=5e-3, atol=1e-6)


@torch.no_grad()
def test_the_image_so_far_is_never_rounded() -> None:
    layer, below = ToRGB(8), torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    nn.init.zeros_(layer.conv.weight)
    x, w = torch.randn(1, 8, 32, 32), torch.randn(1, 512)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x, w, None, None, below)
    assert torch.equal(narrow, layer(x, w, None, None, below))
