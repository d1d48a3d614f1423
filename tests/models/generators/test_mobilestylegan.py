"""The generator: its wavelets, its weight deltas, and that it computes what the published network computes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.generators import mobilestylegan
from models.generators.haar import inverse_haar, without_weave
from models.generators.mobilestylegan import (
    Block,
    FirstConv,
    MobileStyleGAN,
    modulated_kernel,
    pointwise,
)
from pipeline import images, profile, weights
from pipeline.context import Context
from stages.loaders import generator as networks

SIDES = st.integers(1, 5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(net: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Replace every parameter by noise, so that no term is left at its neutral start."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * scale)


@given(st.integers(1, 2), SIDES, SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_inverse_haar_transform_is_orthonormal(n: int, c: int, h: int, w: int, seed: int) -> None:
    coefficients = random(n, 4 * c, h, w, seed=seed)
    image = inverse_haar(coefficients)
    assert torch.allclose(F.avg_pool2d(image, 2) * 2, coefficients[:, :c], atol=1e-5)
    assert torch.allclose(image.square().sum(), coefficients.square().sum(), rtol=1e-4)


@given(st.integers(1, 2), st.sampled_from([64, 128]), st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_only_a_weave_and_a_frame_are_taken_out(n: int, side: int, strength: float, seed: int) -> None:
    weave = strength * random(n, 3, 4, 4, seed=seed).tile(side // 4, side // 4)
    weave -= weave.mean((2, 3), keepdim=True)
    ramps = random(n, 3, 1, 1, seed=seed) * torch.linspace(-1, 1, side) + torch.linspace(0, 2, side)[:, None]
    framed = (ramps + weave).index_fill(3, torch.tensor([*range(4), *range(side - 4, side)]), 9.0)
    cleaned = without_weave(framed)
    inside = slice(24, -24)  # beyond, a ramp ends in a mirrored frame
    assert torch.allclose(cleaned[..., inside, inside], ramps[..., inside, inside], atol=1e-4)
    assert (cleaned - ramps).abs().mean() < 0.3 * (weave.abs().mean() + 16 / side)
    image = random(n, 3, side, side, seed=seed)
    change = (without_weave(image) - image)[..., inside, inside]
    assert change.norm() < 0.3 * image[..., inside, inside].norm()


@pytest.mark.weights
def test_a_wide_weave_goes_and_edges_leave_no_echo() -> None:
    photo = images.to_tensor(images.decode(weights.path("astronaut").read_bytes(), 512))
    weave = 0.015 * random(1, 3, 16, 16, seed=0).tile(32, 32)
    weave -= weave.mean((2, 3), keepdim=True)
    inside = slice(64, -64)
    change = lambda x, y: float((x - y)[..., inside, inside].square().mean().sqrt())  # noqa: E731
    cleaned = without_weave(photo + weave, 16, 0.05)
    assert change(cleaned, without_weave(photo, 16, 0.05)) < 0.8 * change(photo + weave, photo)
    assert change(without_weave(photo, 16, 0.05), photo) < 0.02 < change(without_weave(photo, 16), photo)
    flat = weave + random(1, 3, 1, 1, seed=1)
    assert change(without_weave(flat, 16, 0.05), flat - weave) < 0.1 * change(weave, torch.zeros(1))


@given(st.integers(1, 3), SIDES, SIDES, st.sampled_from(["full", "out", "in"]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_relative_delta_edits_the_kernel(n: int, inputs: int, outputs: int, kind: str, seed: int) -> None:
    x, weight = random(n, inputs, 4, 4, seed=seed), random(outputs, inputs, seed=seed + 1)
    delta = random(*{"full": (n, outputs, inputs), "out": (n, outputs, 1), "in": (n, 1, inputs)}[kind], seed=seed + 2)
    found = pointwise(x, weight, delta)
    for i in range(n):
        edited = (weight * (1 + delta[i]))[:, :, None, None]
        assert torch.allclose(found[i : i + 1], F.conv2d(x[i : i + 1], edited), atol=1e-4)
    assert torch.equal(modulated_kernel(weight, torch.zeros(n, 1, 1)), weight.expand(n, -1, -1))


def test_the_first_convolution_takes_deltas_a_channel_pair() -> None:
    layer = FirstConv(8)
    filled(layer)
    x, w, delta = random(2, 8, 4, 4), random(2, 512), random(2, 8, 8)
    found = layer(x, w, delta)
    assert torch.allclose(layer(x, w, torch.zeros_like(delta)), layer(x, w), atol=1e-5)
    for i in range(2):
        edited = FirstConv(8)
        edited.load_state_dict(layer.state_dict())
        edited.weight.data *= (1 + delta[i])[:, :, None, None]
        assert torch.allclose(found[i : i + 1], edited(x[i : i + 1], w[i : i + 1]), atol=1e-5)


@pytest.fixture(scope="module", params=[256, 1024])
def narrow(request: pytest.FixtureRequest) -> MobileStyleGAN:
    """Either variant with random weights and, to be quick, the finest resolution blocks left out."""
    net = MobileStyleGAN(request.param)
    last = 256 if request.param == 256 else 64
    net.layers = torch.nn.ModuleList([Block(512, 512, 8), Block(512, last, 16)])
    net.requires_grad_(False)
    filled(net, scale=0.05)
    return net.eval()


def parameter(net: MobileStyleGAN, name: str, kind: str) -> Tensor:
    return net.get_parameter(f"{name}.pointwise" if kind == "pointwise" else f"{name}.weight")


def test_the_layer_table_names_what_deltas_edit(narrow: MobileStyleGAN) -> None:
    table = narrow.layer_table()
    assert [entry.index for entry in table] == list(range(len(table)))
    assert [entry.resolution for entry in table] == sorted(entry.resolution for entry in table)
    latent = random(2, 18, 512, seed=3)
    deltas = [0.3 * random(2, *entry.shape[:2], seed=entry.index) for entry in table]
    plain, found = narrow(latent), narrow(latent, deltas)
    assert (plain - found).abs().max() > 0.01 * plain.abs().max()
    assert torch.allclose(narrow(latent, [torch.zeros_like(d) for d in deltas]), plain, atol=1e-5)
    assert torch.equal(narrow(latent, [None] * len(table)), plain)
    kept = {name: p.clone() for name, p in narrow.state_dict().items()}
    for i in range(2):  # a sample's deltas are an edit of the weights, and only its own
        for entry, delta in zip(table, deltas, strict=True):
            weight = parameter(narrow, entry.name, entry.kind)
            assert tuple(weight.shape) == entry.shape
            weight.data *= (1 + delta[i])[..., *[None] * (weight.ndim - 2)]
        edited = narrow(latent[i : i + 1])
        narrow.load_state_dict(kept)
        assert torch.allclose(found[i : i + 1], edited, atol=1e-4 * float(edited.abs().max()))


def test_one_delta_changes_only_its_own_layer(narrow: MobileStyleGAN) -> None:
    latent, table = random(1, 512), narrow.layer_table()
    last = [None] * (len(table) - 1) + [torch.full((1, 1, 1), 0.5)]
    plain, found = narrow(latent), narrow(latent, last)
    bias = (narrow.head or narrow).to_img.bias
    shown = inverse_haar(bias.expand(-1, -1, plain.shape[-1] // 2, -1).expand(-1, -1, -1, plain.shape[-1] // 2))
    assert torch.allclose(found - shown, 1.5 * (plain - shown), atol=1e-4)


def test_a_w_latent_is_the_same_in_every_slot(narrow: MobileStyleGAN) -> None:
    w = random(2, 512)
    assert torch.equal(narrow(w), narrow(w[:, None].expand(-1, 18, -1)))


def test_w_layers_are_in_order_and_within_the_convention() -> None:
    names = ["conv1", *(f"layers.{i}.{part}" for i in range(7) for part in ("up", "conv1", "conv2")), "to_img"]
    num_ws = [mobilestylegan.w_layer_of(name) for name in names]
    assert num_ws == sorted(num_ws) and num_ws[0] == 0 and num_ws[-1] == mobilestylegan.NUM_WS - 1
    assert all(0 <= mobilestylegan.w_layer_of(name) < mobilestylegan.NUM_WS for name in ("head.conv1", "head.to_img"))


def test_only_two_sizes_exist() -> None:
    with pytest.raises(ValueError, match="size is 512"):
        MobileStyleGAN(512)


# The published network, run by OpenVINO in float32 on the latent of numpy's PCG64(7).
W_START = (0.19409516, -0.08007729, -0.43607956, -0.15700705, -0.11120763, 0.15430322)
W_MEAN, W_STD = 0.10088552, 0.48462440
IMAGE_GRID = (  # every 256th pixel, by channel
    (-0.6166, -0.86616, -0.87536, -0.68003, -0.43689, -0.83253, 0.0238, 0.56474,
     0.70495, -0.73621, 0.66627, 0.64916, -0.42456, -0.81334, 0.69911, 0.3355),
    (-0.558, -0.87197, -0.88222, -0.56951, -0.4524, -0.8673, -0.40026, 0.37327,
     0.32309, -0.667, 0.11249, 0.20064, -0.48558, -0.84655, 0.57486, -0.16335),
    (-0.70457, -0.93216, -0.93656, -0.93638, -0.69281, -0.88, -1.05681, -0.3717,
     -0.30237, -0.84856, -0.29397, -0.1128, -0.80527, -0.87803, 0.21989, -0.48931),
)  # fmt: skip
IMAGE_MEAN, IMAGE_STD = (0.09707531, -0.15028062, -0.49653973), (0.57862353, 0.49229974, 0.34505459)


@pytest.fixture(scope="module")
def published() -> MobileStyleGAN:
    return MobileStyleGAN.load(weights.tensors("mobilestylegan"))


@pytest.fixture(scope="module")
def drawn(published: MobileStyleGAN) -> tuple[Tensor, Tensor]:
    """The reference latent's w and image."""
    z = np.random.Generator(np.random.PCG64(7)).standard_normal((1, 512), dtype=np.float32)
    with torch.no_grad():
        w = published.map(torch.from_numpy(z))
        return w, published(w)


@pytest.mark.weights
class TestPublished:
    def test_mapping_is_openvinos(self, drawn: tuple[Tensor, Tensor]) -> None:
        w = drawn[0].double().numpy()
        assert np.abs(w[0, :6] - W_START).max() < 2e-5
        assert abs(w.mean() - W_MEAN) < 1e-5 and abs(w.std() - W_STD) < 1e-5

    def test_synthesis_is_openvinos(self, drawn: tuple[Tensor, Tensor]) -> None:
        image = drawn[1].double().numpy()
        assert image.shape == (1, 3, 1024, 1024)
        assert np.abs(image[0, :, ::256, ::256].reshape(3, -1) - IMAGE_GRID).max() < 1e-3
        assert np.abs(image.mean((0, 2, 3)) - IMAGE_MEAN).max() < 1e-4
        assert np.abs(image.std((0, 2, 3)) - IMAGE_STD).max() < 1e-4

    def test_the_cut_shows_the_same_face(self, published: MobileStyleGAN) -> None:
        cut = networks.generator(Context(profile.load("portable"), run=Path("unused")))
        told = float(json.loads(weights.metadata("head256")["meta"])["held_out_psnr_db"])
        mean = published.mean_latent(1000)
        with torch.no_grad():
            w = mean + 0.7 * (published.map(random(1, 512, seed=5)) - mean)
            small, target = cut(w).clamp(-1, 1), F.avg_pool2d(published(w), 4).clamp(-1, 1)
        assert small.shape == target.shape == (1, 3, 256, 256)
        assert 10 * torch.log10(4 / F.mse_loss(small, target)) > told - 4

    def test_mapping_ignores_the_length_of_z(self, published: MobileStyleGAN) -> None:
        z = random(3, 512)
        assert torch.allclose(published.map(z), published.map(7 * z), atol=1e-5)
        assert torch.equal(published.mean_latent(50), published.mean_latent(50))
