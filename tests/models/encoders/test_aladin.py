"""ALADIN against the published network, and the properties of its codes."""

import pytest
import torch

from models.backbones.trunks import Trunk
from models.encoders.aladin import STATISTICS, Aladin, ProjectionHead, statistics
from models.encoders.aladin_vit import AladinViT
from tests.support.goldens import Case


def test_equals_the_published_network() -> None:
    case = Case("aladin_vgg")
    net = Aladin.load(case.tensors())
    image = torch.from_numpy(case.input("image"))
    with torch.inference_mode():
        stats = net.statistics(image)
        case.check("stats", stats)
        case.check("embedding", net.head(stats))
        case.check("embedding_unit", net(image))


def test_the_transformer_equals_the_published_one() -> None:
    case = Case("aladin_vit")
    tensors = case.tensors()
    net = AladinViT.load(tensors)
    image = torch.from_numpy(case.input("image"))
    with torch.inference_mode():
        code = net.code(image)
        case.check("code", code)
        case.check("embedding", net.head(code))
        case.check("embedding_unit", net(image))
    assert sum(p.numel() for p in net.parameters()) == sum(t.numel() for t in tensors.values())


def test_loading_names_what_does_not_fit() -> None:
    case = Case("aladin_vgg")
    tensors = case.tensors()
    without = {name: t for name, t in tensors.items() if name != "enc_style.model.conv_3.bias"}
    with pytest.raises(ValueError, match=r"1 of 30 tensors are missing \(enc_style\.model\.conv_3\.bias\)"):
        Aladin.load(without)
    with pytest.raises(ValueError, match=r"proj_head\.fc2\.weight is \[128, 1024\] instead of \[256, 1024\]"):
        Aladin.load(tensors | {"proj_head.fc2.weight": torch.zeros(128, 1024)})
    with pytest.raises(ValueError, match=r"1 tensors are unexpected \(style_mlp\.weight\)"):
        Aladin.load(tensors | {"style_mlp.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="not an ALADIN ViT"):
        AladinViT.load(tensors)


def test_codes_have_unit_length_even_for_a_flat_picture() -> None:
    torch.manual_seed(0)
    net = Aladin(size=32)
    codes = net(torch.stack([torch.rand(3, 48, 48) * 2 - 1, torch.zeros(3, 48, 48)]))
    assert codes.shape == (2, 256) and torch.allclose(codes.norm(dim=1), torch.ones(2), atol=1e-5)


def test_statistics_refuse_a_single_pixel_layer() -> None:
    with pytest.raises(ValueError, match="at least 32 px"):
        statistics(Trunk("vgg16"), torch.zeros(1, 3, 16, 16))


def test_the_head_takes_its_width_from_the_tensors() -> None:
    trunk = Trunk("vgg16")
    tensors = {f"proj_head.{k}": v.half() for k, v in ProjectionHead(24).state_dict().items()}
    net = Aladin(tensors, trunk=trunk, size=32)
    assert net.head.fc1.weight.shape == (24, STATISTICS)
    with pytest.raises(ValueError, match=r"proj_head\.fc1\.weight is missing"):
        Aladin({}, trunk=trunk)
