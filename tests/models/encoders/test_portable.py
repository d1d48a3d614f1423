"""The inverter: its closed-form linear path, its passes, and one short training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.backbones.trunks import Trunk
from models.encoders import portable as inverter
from models.encoders.optimisation import Metric
from models.encoders.portable import POOLED, SPANS, PortableEncoder, Refiner, image_features, pool, solve_linear
from models.generators.mobilestylegan import NUM_WS


def ridge_regression(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Coefficients [P, D] by the primal normal equations, on standardised columns as the solver does."""
    x = x - x.mean(0)
    scale = 1 / (x.std(0, ddof=1) + 1e-2 * x.std(ddof=1))
    x = x * scale
    strength = ridge * np.square(x).sum(1).mean()
    return scale[:, None] * np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))


@given(st.integers(3, 30), st.sampled_from([0.003, 0.1, 1.0]), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_the_linear_path_is_ridge_regression(rows: int, ridge: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, 40)) * np.arange(1, 41) + 3, rng.standard_normal((rows, 12)) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverter, "RANK", 12)
        squeeze, expand = solve_linear(torch.from_numpy(x).float(), torch.from_numpy(y).float(), ridge)
    assert squeeze.shape == (12, 40) and expand.shape == (12, 12)
    expected = ridge_regression(x, y, ridge)
    assert np.abs((expand @ squeeze).T.numpy() - expected).max() < 2e-3 * np.abs(expected).max() + 1e-6


def test_its_rank_is_cut_where_it_matters_least() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 40)), rng.standard_normal((60, 12)) * 0.5 ** np.arange(12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverter, "RANK", 4)
        squeeze, expand = solve_linear(torch.from_numpy(x).float(), torch.from_numpy(y).float(), 0.1)
    wanted = ridge_regression(x, y, 0.1)
    least = np.linalg.norm(np.linalg.svd(wanted, compute_uv=False)[4:])
    assert np.linalg.norm((expand @ squeeze).T.numpy() - wanted) < 1.5 * least


class Sketch:
    """A generator in two lines: colours of 16 x 16 cells are the latent's first numbers."""

    def __call__(self, latent: Tensor) -> Tensor:
        return F.interpolate(latent[:, :3, :256].reshape(-1, 3, 16, 16).tanh(), (256, 256))


@pytest.fixture(scope="module", params=[False, True], ids=["linear", "refined"])
def net(request: pytest.FixtureRequest) -> PortableEncoder:
    torch.manual_seed(0)
    net = PortableEncoder(torch.randn(512), torch.rand(512) + 0.5, refine=request.param)
    torch.nn.init.normal_(net.expand.weight, 0, 0.03)
    if net.refiner is not None:
        for layer in (net.refiner.base, net.refiner.offsets):
            torch.nn.init.normal_(layer.weight, 0, 0.03)
    return net


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(1)
    return Trunk("alex")


def faces(n: int) -> Tensor:
    return Sketch()(torch.randn(n, NUM_WS, 512, generator=torch.Generator().manual_seed(2)))


@torch.no_grad()
def test_a_new_inverter_says_the_mean(trunk: Trunk) -> None:
    mean, deviation = torch.randn(512), torch.rand(512)
    latent = PortableEncoder(mean, deviation)(faces(1), trunk, Sketch(), 1)
    assert torch.equal(latent, mean.expand(1, NUM_WS, 512))
    latent = PortableEncoder(mean, deviation, refine=True)(faces(1), trunk, Sketch(), 1)
    assert float(((latent - mean) / deviation).abs().max()) < 0.2


def test_pooled_features_have_the_size_the_linear_path_expects(trunk: Trunk) -> None:
    x = faces(2)
    pooled = pool(x, trunk(x))
    assert pooled.shape == (2, POOLED)
    assert torch.allclose(pooled[:, : 3 * 256].reshape(2, 3, 16, 16), F.avg_pool2d(x, 16), atol=1e-6)


@torch.no_grad()
def test_a_latent_does_not_depend_on_the_batch(net: PortableEncoder, trunk: Trunk) -> None:
    x = faces(2)
    together = net(x, trunk, Sketch(), 2)
    for i in range(2):
        assert torch.allclose(net(x[i : i + 1], trunk, Sketch(), 2), together[i : i + 1], atol=1e-4)


def test_each_pass_starts_from_the_one_before_and_learns_by_itself(net: PortableEncoder, trunk: Trunk) -> None:
    x = faces(1)
    first, second = net.passes(x, trunk, Sketch(), 2)
    current = image_features(trunk, Sketch()(first.detach()).clamp(-1, 1))
    assert torch.allclose(net.step(image_features(trunk, x), current, first.detach()), second, atol=1e-5)
    alike = [bool(torch.allclose(first[:, i], first[:, i + 1])) for i in range(NUM_WS - 1)]
    if net.refiner is None:  # the linear path gives one latent to each span of W+ layers
        assert [i + 1 for i in range(NUM_WS - 1) if not alike[i]] == [
            sum(SPANS[: k + 1]) for k in range(len(SPANS) - 1)
        ]
    else:
        assert not any(alike)
    mean_face = Sketch()(net.mean.expand(1, NUM_WS, -1)).clamp(-1, 1)
    assert torch.equal(net.passes(x, trunk, Sketch(), 1, mean_face)[0], first)
    change = net.squeeze(image_features(trunk, x).pooled - current.pooled)[0]
    gradient = torch.autograd.grad(second.sum(), net.expand.weight)[0]
    wanted = torch.cat([count * net.deviation[:, None] * change for count in SPANS])
    assert torch.allclose(gradient, wanted, atol=1e-3)  # of the second pass only


def test_the_linear_path_is_silent_when_nothing_is_left_to_correct(trunk: Trunk) -> None:
    net, seen = PortableEncoder(torch.randn(512)), image_features(trunk, faces(1))
    torch.nn.init.normal_(net.expand.weight)
    assert torch.equal(net.step(seen, seen, net.mean.expand(1, NUM_WS, -1)), net.mean.expand(1, NUM_WS, -1))


def test_other_sizes_are_refused(trunk: Trunk) -> None:
    with pytest.raises(ValueError, match=r"reads images \[N, 3, 256, 256\]"):
        image_features(trunk, torch.zeros(1, 3, 128, 128))


def test_saved_weights_load_frozen(net: PortableEncoder) -> None:
    loaded = PortableEncoder.load({name: t.half() for name, t in net.state_dict().items()})
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert isinstance(loaded.refiner, Refiner) == isinstance(net.refiner, Refiner)
    for name, t in loaded.named_buffers():
        assert torch.allclose(t, net.get_buffer(name), atol=1e-2)
    assert loaded.metric is None
    buffers = Metric(torch.rand(3), torch.rand(3, 1024)).state_dict()
    measured = net.state_dict() | {f"metric.{name}": t for name, t in buffers.items()}
    metric = PortableEncoder.load(measured).metric
    assert metric is not None and torch.equal(metric.vectors, measured["metric.vectors"])


def test_files_of_one_latent_for_all_slots_are_read(trunk: Trunk) -> None:
    net = PortableEncoder(torch.randn(512))
    torch.nn.init.normal_(net.expand.weight, 0, 0.03)
    former = net.state_dict() | {"expand.weight": net.expand.weight.detach()[:512]}
    latent = PortableEncoder.load(former)(faces(1), trunk, Sketch(), 1)
    assert torch.equal(latent, latent[:, :1].expand(-1, NUM_WS, -1)) and not torch.equal(latent[0, 0], net.mean)
