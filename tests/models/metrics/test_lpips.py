"""LPIPS and its trunks: known answers with the real weights, and the properties of a distance."""

import pytest
import torch

from models.backbones.trunks import LAYOUTS, Trunk
from models.metrics.lpips import LPIPS


def test_lpips_is_a_symmetric_distance_with_gradients() -> None:
    torch.manual_seed(0)
    net = LPIPS("alex")
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(net(a, a), torch.zeros(2))
    assert torch.allclose(net(a, b), net(b, a)) and bool((net(a, b) > 0).all())
    assert torch.allclose(net(a, b), net.distance(net.features(a), net.features(b)))
    a.requires_grad_(True)
    net(a, b).sum().backward()
    assert a.grad is not None and float(a.grad.abs().sum()) > 0


def test_vgg_yields_every_layer() -> None:
    net = Trunk("vgg16")
    x = torch.rand(1, 3, 32, 32)
    shapes = [y.shape[1] for y in net.layers(x)]
    assert shapes == [c.outputs for c in LAYOUTS["vgg16"]] and sum(shapes) * 2 == 8448
    assert [f.shape[-1] for f in net(x)] == [32, 16, 8, 4, 2]


def test_wrong_tensors_are_named() -> None:
    tensors = {f"trunk.{k.removeprefix('convs.')}": v for k, v in Trunk("alex").state_dict().items()}
    with pytest.raises(ValueError, match=r"lin.0.weight"):
        LPIPS("alex", tensors)
    del tensors["trunk.3.bias"]
    with pytest.raises(ValueError, match=r"trunk.3.bias has to be \[256\], got nothing"):
        Trunk("alex", tensors)


def patterns() -> tuple[torch.Tensor, torch.Tensor]:
    """Two deterministic images [1, 3, 64, 64] in [-1, 1]: waves, and the same waves turned and tinted."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    a = torch.stack([torch.sin(x / 5), torch.sin(y / 7), torch.cos((x + y) / 9)])
    b = torch.stack([torch.sin(y / 5), torch.sin(y / 7), torch.cos((x - y) / 9) * 0.5])
    return a[None], b[None]


@pytest.mark.weights
@pytest.mark.parametrize(("net", "distance"), [("alex", 0.237460), ("vgg", 0.589834)])
def test_known_answers(net: str, distance: float) -> None:
    """These weights also give the LPIPS example images their published 0.7219 / 0.1376 and 0.5686 / 0.4217."""
    from pipeline import weights

    a, b = patterns()
    assert float(LPIPS(net, weights.tensors(f"lpips-{net}"))(a, b)) == pytest.approx(distance, abs=2e-5)
