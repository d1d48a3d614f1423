"""SIFID: the Frechet distance against a reference, the Inception stem with its real weights."""

import pytest
import torch
from torch import nn

from models.backbones.inception import LAYERS, PUBLISHED, InceptionStem
from models.metrics.sifid import Gaussian, frechet, gaussian
from tests.models.metrics.test_lpips import patterns
from tests.support.goldens import Case


def test_frechet_equals_the_reference_even_when_rank_deficient() -> None:
    case = Case("frechet")
    sets = {n: torch.from_numpy(case.input(n)).double() for n in ("a", "b", "few_a", "few_b")}
    mix, shift = (torch.from_numpy(case.input(n)).double() for n in ("mix", "shift"))

    def summary(rows: torch.Tensor) -> Gaussian:
        return gaussian(rows.T[:, :, None])

    moved = {n: summary(sets[n] @ mix + shift) for n in ("b", "few_b")}
    own = {n: summary(sets[n]) for n in ("a", "few_a")}
    pairs = {
        "well": (own["a"], moved["b"]), "deficient": (own["few_a"], moved["few_b"]),
        "one_deficient": (own["a"], moved["few_b"]), "identical": (own["a"], own["a"]),
        "identical_deficient": (own["few_a"], own["few_a"]),
    }  # fmt: skip
    for name, (a, b) in pairs.items():
        for way in ("svd", "eig", "sqrtm"):
            case.check(f"{name}.{way}", frechet(a, b))
    case.check("well.mu1", own["a"].mean)
    case.check("well.cov1_diag", own["a"].covariance.diagonal())


def test_a_distance_to_itself_is_zero_and_to_a_shift_the_shift() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 20, 20)
    a = gaussian(x)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, gaussian(x + 2)) == pytest.approx(32)
    flat = gaussian(torch.zeros(8, 20, 20))
    assert frechet(a, flat) == pytest.approx(frechet(flat, a))
    with pytest.raises(ValueError, match="at least 2 positions"):
        gaussian(torch.zeros(8, 1, 1))


def test_feature_maps_have_the_published_sizes() -> None:
    maps = InceptionStem()(torch.zeros(1, 3, 256, 256))
    assert {c: tuple(m.shape[1:]) for c, m in maps.items()} == {64: (64, 125, 125), 192: (192, 60, 60)}
    with pytest.raises(ValueError, match=r"conv.0.weight has to be \[32, 3, 3, 3\], got nothing"):
        InceptionStem({})


def test_torchvisions_network_is_read_with_its_norms_folded_in() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Conv2d(i, o, k, s, p, bias=False), nn.BatchNorm2d(o, eps=1e-3), nn.ReLU()).eval()
        for i, o, k, s, p in LAYERS
    ]
    state = {"fc.weight": torch.zeros(1000, 2048)}
    for layer, name in zip(layers, PUBLISHED, strict=True):
        for tensor in (layer[1].running_mean, layer[1].running_var, layer[1].weight, layer[1].bias):
            tensor.data.uniform_(0.5, 1.5)
        state |= {f"{name}.conv.weight": layer[0].weight.data}
        state |= {f"{name}.bn.{leaf}": t for leaf, t in layer[1].state_dict().items()}
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        fine = nn.Sequential(*layers[:3])(x)
        found = InceptionStem.load_imagenet(state)(x)
        torch.testing.assert_close(found[64], fine, rtol=1e-3, atol=1e-4)
        coarse = nn.Sequential(*layers[3:])(nn.functional.max_pool2d(fine, 3, 2))
        torch.testing.assert_close(found[192], coarse, rtol=1e-3, atol=1e-4)
    del state["Conv2d_4a_3x3.bn.bias"]
    with pytest.raises(ValueError, match="not torchvision's Inception: Conv2d_4a_3x3 is incomplete"):
        InceptionStem.load_imagenet(state)


@pytest.mark.weights
def test_known_answers() -> None:
    """The stem equals the package's TorchScript network to 1e-5 on noise, which gave these two distances."""
    from pipeline import weights

    net = InceptionStem(weights.tensors("inception-fid"))
    a, b = (net(x) for x in patterns())
    distances = [frechet(gaussian(a[c][0]), gaussian(b[c][0])) for c in (64, 192)]
    assert distances == pytest.approx([25.0315, 195.1565], abs=1e-2)
