"""Deltas that act where their region lies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.generators.interface import Generator
from models.generators.mobilestylegan import MobileStyleGAN
from models.generators.region_weights import FEATHER, RegionWeights
from models.generators.stylegan2 import StyleGAN2
from models.regions import UNKNOWN

LABELS = (0, 1, 2, UNKNOWN)


def maps(seed: int, n: int, side: int, labels: int) -> Tensor:
    """Region maps in blobs of 8 px."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array(LABELS[:labels], np.uint8), (n, side // 8, side // 8))
    return torch.from_numpy(coarse.repeat(8, 1).repeat(8, 2))


@given(st.integers(0, 999), st.integers(1, 2), st.integers(1, 4), st.sampled_from([4, 8, 32, 64, 128]))
@settings(max_examples=40, deadline=None)
def test_the_shares_of_a_place_are_its_regions(seed: int, n: int, labels: int, side: int) -> None:
    region = maps(seed, n, 64, labels)
    region_weights = RegionWeights(region)
    shares = region_weights.weights(side)
    assert region_weights.region_count == (4 if bool((region == UNKNOWN).any()) else 3)
    assert shares.shape == (n, region_weights.region_count, side, side) and bool((shares >= 0).all())
    assert torch.allclose(shares.sum(1), torch.ones(n, side, side), atol=1e-6)
    for sample, label in ((i, r) for i in range(n) for r in range(region_weights.region_count)):
        others = (region[sample] != LABELS[label]).float()[None]
        near = torch.nn.functional.max_pool2d(others, FEATHER, 1, FEATHER // 2)
        if side == 64:  # one region as far as the feather reaches: that region alone
            assert bool((shares[sample, label][near[0] == 0] > 1 - 1e-6).all())


@pytest.mark.parametrize("side", [8, 16, 32, 64, 128])
def test_regions_fade_over_positions_at_every_resolution(side: int) -> None:
    region = torch.zeros(1, 256, 256, dtype=torch.uint8)
    region[:, :, 128:] = 1
    share = RegionWeights(region).weights(side)[0, 1, 0]
    assert float(share.diff().max()) < 0.45 and bool((share.diff() >= 0).all())


@given(st.integers(0, 999), st.integers(1, 2), st.integers(1, 4), st.booleans())
@settings(max_examples=50, deadline=None)
def test_convolving_by_place_is_the_weighted_sum_of_every_regions_answer(
    seed: int, n: int, labels: int, everywhere: bool
) -> None:
    torch.manual_seed(seed)
    region_weights = RegionWeights(maps(seed, n, 64, labels))
    region_weights.everywhere = everywhere  # as on a GPU
    x = torch.randn(n, 5, 16, 16, requires_grad=True)
    kernels = torch.randn(n, region_weights.region_count, 7, 5, requires_grad=True)
    given_back = torch.randn(n, 7, 16, 16)
    dense = torch.einsum("nroc,nchw,nrhw->nohw", kernels, x, region_weights.weights(16))
    found = region_weights.convolve(x, kernels)
    assert torch.allclose(found, dense, atol=1e-4)
    for ours, plain in zip(
        torch.autograd.grad(found, (x, kernels), given_back),
        torch.autograd.grad(dense, (x, kernels), given_back),
        strict=True,
    ):
        assert torch.allclose(ours, plain, atol=1e-3)


@pytest.mark.parametrize(
    "build", [lambda: MobileStyleGAN(256), lambda: StyleGAN2(32, 0.25, 2)], ids=["MobileStyleGAN", "StyleGAN2"]
)
def test_the_same_deltas_in_every_region_are_deltas_everywhere(build: type[Generator]) -> None:
    torch.manual_seed(0)
    net = build()
    for p in net.parameters():  # type: ignore[attr-defined]
        torch.nn.init.normal_(p, 0, 0.05)
    region_weights = RegionWeights(maps(0, 2, 256, 4))
    latent = torch.randn(2, net.num_ws, 512)
    deltas = [0.3 * torch.randn(2, *entry.shape[:2]) for entry in net.layer_table()]
    with torch.no_grad():
        everywhere, change = net(latent, deltas), net(latent, deltas) - net(latent)
        by_region = net(
            latent, [d[:, None].expand(-1, region_weights.region_count, -1, -1) for d in deltas], region_weights
        )
    assert change.norm() > 0 and (by_region - everywhere).norm() < 1e-4 * change.norm()


def test_a_regions_delta_leaves_the_last_layer_of_other_regions_alone() -> None:
    torch.manual_seed(0)
    net = MobileStyleGAN(256)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, 0.05)
    region = torch.zeros(1, 256, 256, dtype=torch.uint8)
    region[:, :, 128:] = 1
    latent, region_weights = torch.randn(1, 18, 512), RegionWeights(region)
    deltas: list[Tensor | None] = [None] * len(net.layer_table())
    last = torch.zeros(1, 3, *net.layer_table()[-1].shape[:2])
    last[:, 1] = 1.0
    with torch.no_grad():
        changed = (net(latent, [*deltas[:-1], last], region_weights) - net(latent)).abs().amax(1)[0]
    assert not changed[:, : 128 - FEATHER].any() and bool((changed[:, 128 + FEATHER :] > 0).float().mean() > 0.99)
