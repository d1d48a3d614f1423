"""Batch renormalisation: batch norm's gradient, the running statistics' values, and features that do not run away."""

import torch
from torch import Tensor, nn

from models.hypernetworks.batch_renorm import BatchRenorm
from models.hypernetworks.hyperstyle import Trunk


def images(count: int = 2, side: int = 6, channels: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return 1 + 2 * torch.randn(count, channels, side, side, generator=rng, dtype=torch.float64)


def test_it_gives_the_running_statistics_values_and_batch_norms_gradient() -> None:
    x, weights = images().requires_grad_(), images().square()
    ours, theirs = BatchRenorm(3).double().eval(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        for p in (*ours.parameters(), *theirs.parameters()):
            p.copy_(torch.tensor([0.5, 1.0, -2.0]))
        ours.running_mean.add_(0.3)
        ours.running_var.copy_(4 * x.var((0, 2, 3), correction=0) + 3 * ours.eps)  # twice the batch's deviation
    assert torch.equal(ours(x), nn.BatchNorm2d.forward(ours, x))
    found, wanted = (torch.autograd.grad((net(x) * weights).sum(), x)[0] for net in (ours, theirs))
    torch.testing.assert_close(2 * found, wanted)


def test_the_statistics_follow_what_was_learnt_from() -> None:
    norm, x = BatchRenorm(3).double().eval(), images(4).requires_grad_()
    for part in x.split(2):
        norm(part).square().sum().backward()
    norm(x.detach())
    seen = norm.seen()
    assert seen is not None and norm.seen() is None
    norm.follow(seen, 1.0)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.var((0, 2, 3), correction=0))


def test_a_new_trunks_features_do_not_run_away() -> None:
    """All that a fresh head's gradient says at first is "more": with constant statistics that is 30 times more."""
    torch.manual_seed(0)
    trunk = Trunk().eval()
    norms = [module for module in trunk.modules() if isinstance(module, BatchRenorm)]
    small = torch.rand(2, 6, 8, 8) * 2 - 1
    x = nn.functional.interpolate(small, (64, 64), mode="bilinear")
    for norm in norms:
        norm.train()
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        trunk.features(x)
    for norm in norms:
        norm.eval()
    optimiser, sizes = torch.optim.Adam(trunk.parameters(), 1e-5), []
    for _ in range(12):
        optimiser.zero_grad()
        features = trunk.features(x)
        (-features.mean()).backward()
        optimiser.step()
        for norm in norms:
            seen = norm.seen()
            assert seen is not None
            norm.follow(seen)
        sizes.append(float(features.detach().square().mean().sqrt()))
    assert sizes[-1] < 2 * sizes[0], sizes
