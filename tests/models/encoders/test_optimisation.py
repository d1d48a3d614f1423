"""Descent on a latent: known minima for the optimiser, the definition for the metric, and the loss."""

import pytest
import torch
from torch import Tensor

from models.encoders import face_loss, optimisation
from models.encoders.face_loss import FACE, FaceLoss
from models.encoders.optimisation import FLOOR, Metric, minimise, optimise
from models.metrics.lpips import LPIPS

RNG = torch.Generator().manual_seed(0)


def quadratic(stiffness: Tensor, bottom: Tensor) -> optimisation.Slope:
    """Value and gradient of |J (u - bottom)|^2."""

    def slope(u: Tensor) -> tuple[float, Tensor]:
        away = stiffness @ (u - bottom)
        return float(away @ away), 2 * stiffness.T @ away

    return slope


def test_it_finds_the_bottom_of_an_uneven_bowl() -> None:
    bottom = torch.randn(12, generator=RNG)
    slope = quadratic(torch.diag(torch.linspace(0.3, 1.2, 12)), bottom)
    start = torch.zeros(12)
    assert torch.equal(minimise(slope, start, 0), start)
    gone = [slope(minimise(slope, start, steps))[0] / slope(start)[0] for steps in (4, 8, 20)]
    assert gone[0] < 0.2 and gone[1] < 0.01 and gone[2] < 1e-6


def test_a_step_too_far_is_taken_back() -> None:
    asked: list[float] = []

    def slope(u: Tensor) -> tuple[float, Tensor]:  # 20 times as steep as the first step expects
        asked.append(float(20 * u.square().sum()))
        return asked[-1], 40 * u

    found = minimise(slope, torch.ones(1), 10)
    assert asked[1] > asked[0]  # it did go too far
    assert 20 * float(found.square()) < 1e-6 * asked[0]


def test_the_metric_makes_probes_round() -> None:
    probes = torch.randn(40, 512, generator=RNG) * torch.logspace(0, -3, 512)
    metric = Metric.solve(probes, 40)
    average = probes.T @ probes / 40
    assert bool((metric.values.diff() <= 0).all())
    torch.testing.assert_close(metric.vectors.T * metric.values @ metric.vectors, average, atol=1e-4, rtol=1e-3)
    floor = FLOOR * metric.values[0]
    u = torch.randn(512, generator=RNG)
    twice = metric.shift(metric.shift(u)[0])[0]  # the root's square is the inverse
    torch.testing.assert_close((average + floor * torch.eye(512)) @ twice, u, atol=2e-3, rtol=1e-2)


def test_in_its_metric_an_uneven_loss_is_a_round_one() -> None:
    directions = torch.randn(6, 1024, generator=RNG) * torch.logspace(0, -1.2, 6)[:, None]
    metric, plain = Metric.solve(directions, 6), Metric(torch.ones(1), torch.zeros(1, 1024))
    latent, deviation = torch.randn(1, 3, 512, generator=RNG), torch.rand(512, generator=RNG) + 0.5
    wanted = latent.clone()
    wanted[:, :2] += (directions.T @ torch.randn(6, generator=RNG)).view(2, 512) * 0.1 * deviation

    def loss(w: Tensor) -> Tensor:
        return (directions @ ((w - wanted)[:, :2] / deviation).flatten()).square().mean()

    before, after, slower = (
        float(loss(x)) for x in (latent, *(optimise(latent, deviation, m, loss, 6) for m in (metric, plain)))
    )
    assert after < 0.05 * before and after < 0.2 * slower
    found = optimise(latent, deviation, metric, loss, 6)
    assert torch.equal(found, optimise(latent, deviation, metric, loss, 6)) and not found.requires_grad
    assert torch.equal(found[:, 2], latent[:, 2])  # a slot beyond the metric's stays
    assert torch.equal(optimise(latent, deviation, metric, loss, 0), latent)


@pytest.fixture(scope="module")
def loss() -> FaceLoss:
    torch.manual_seed(0)
    return FaceLoss(LPIPS("vgg"))


def pictures(count: int) -> Tensor:
    small = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.nn.functional.interpolate(small, (256, 256), mode="bilinear")


def test_the_face_weighs_more_than_its_surroundings(loss: FaceLoss) -> None:
    x, other = pictures(2).split(1)
    target = loss.target(x)
    assert float(loss(x, target)) == 0
    inside, outside = x.clone(), x.clone()
    inside[:, :, *FACE] = other[:, :, *FACE]
    outside[:, :, : FACE[0].start] = other[:, :, : FACE[0].start]  # as many pixels above the face as in it
    assert float(loss(inside, target)) > 1.5 * float(loss(outside, target)) > 0
    narrow = FaceLoss(LPIPS("vgg"), torch.bfloat16)
    narrow.convs = [(w.bfloat16(), b.bfloat16(), spec) for w, b, spec in loss.convs]
    narrow.lins = loss.lins
    assert abs(float(narrow(other, narrow.target(x)) / loss(other, target)) - 1) < 0.02


def test_its_terms_are_lpips_of_the_views(loss: FaceLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lpips = LPIPS("vgg")
    x, y = pictures(2).split(1)
    monkeypatch.setattr(face_loss, "TAPS", 5)
    whole = FaceLoss(lpips)
    pixels = (x - y).square().mean() + (x - y)[:, :, *FACE].square().mean()
    views = [lpips(a, b) * w for w, a, b in zip((1.0, face_loss.WHOLE), whole._views(x), whole._views(y), strict=True)]
    torch.testing.assert_close(whole(y, whole.target(x)), pixels + sum(views).squeeze(), rtol=1e-4, atol=1e-5)


def test_probes_have_the_gauss_newton_matrix_of_the_loss(loss: FaceLoss) -> None:
    """Near its target the loss along d is d^T J^T J d, and so is the mean square of d . probe gradients."""
    x, other = pictures(2).split(1)
    d = 1e-3 * (other - x)
    wanted = float(loss(x + d, loss.target(x)))
    y = x.clone().requires_grad_()
    rng = torch.Generator().manual_seed(1)
    along = torch.stack([(torch.autograd.grad(loss.probe(y, rng), y)[0] * d).sum() for _ in range(60)])
    assert abs(float(along.square().mean()) / wanted - 1) < 0.6
