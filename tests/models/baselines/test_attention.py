"""SANet, ContraAST and PAMA: every stage against the published networks' numbers, wrong files, interpolation."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.baselines.pama import PAMA
from models.baselines.sanet import ContraAST, SANet
from models.baselines.vgg19 import Decoder, moments, normalised
from tests.support.goldens import Case


def files(case: Case) -> dict[str, dict[str, Tensor]]:
    """The tensors of each published file of a case, by its tag."""
    found: dict[str, dict[str, Tensor]] = {tag: {} for tag in case.case["checkpoint_layout"]["files"]}
    for name, tensor in case.tensors().items():
        tag, _, key = name.partition("/")
        found.setdefault(tag, {})[key] = tensor
    return found


def images(case: Case) -> list[Tensor]:
    return [torch.from_numpy(case.input(name)) for name in ("content", "style")]


def same_image(net: torch.nn.Module, content: Tensor, style: Tensor, stylized: Tensor) -> None:
    """The image between -1 and 1 is the raw one in [0, 1], clamped; at alpha 1 exactly, at 0 without the style."""
    torch.testing.assert_close(net(content * 2 - 1, style * 2 - 1), stylized.clamp(0, 1) * 2 - 1)
    plain = net(content * 2 - 1, style * 2 - 1, alpha=0.0)
    assert torch.equal(plain, net(content * 2 - 1, content * 2 - 1, alpha=0.0))
    half = net(content * 2 - 1, style * 2 - 1, alpha=0.5)
    assert not torch.equal(half, plain) and not torch.equal(half, net(content * 2 - 1, style * 2 - 1))


def test_sanet() -> None:
    case = Case("sanet")
    parts = files(case)
    net = SANet.load(parts["vgg"], parts["decoder"], parts["transformer"])
    content, style = images(case)
    ours, theirs = net.encoder.taps(content), net.encoder.taps(style)
    for i, features in enumerate(ours, 1):
        case.check(f"content.relu{i}_1", features)
    case.check("style.relu5_1", theirs[4])
    fine, coarse = (net.transformer.get_submodule(f"sanet{i}_1")(ours[i - 1], theirs[i - 1]) for i in (4, 5))
    case.check("sanet4_1", fine)
    case.check("sanet5_1", coarse)
    transformed = net.transformer(net.encode(content), net.encode(style))
    case.check("transformed", transformed)
    stylized = net.decoder(transformed)
    case.check("stylized", stylized)
    same_image(net, content, style, stylized)
    with pytest.raises(ValueError, match="a content side is 40 px; expected multiples of 16"):
        net(content[..., :40], style)


def test_contraast_takes_content_of_any_size() -> None:
    case = Case("contraast")
    parts = files(case)
    net = ContraAST.load(parts["vgg"], parts["decoder"], parts["transformer"])
    content, style = images(case)
    for name, features in zip(("relu4_1", "relu5_1"), net.encode(content), strict=True):
        case.check(f"content.{name}", features)
    transformed = net.transformer(net.encode(content), net.encode(style))
    case.check("transformed", transformed)
    stylized = net.decoder(transformed)
    case.check("stylized", stylized)
    same_image(net, content, style, stylized)
    assert net(content[..., :85, :70], style).shape == (1, 3, 85, 70)


def test_pama() -> None:
    case = Case("pama")
    parts = files(case)
    order = ("encoder", "align1", "align2", "align3", "decoder")
    net = PAMA.load(*(parts[tag] for tag in order))
    content, style = images(case)
    features, theirs = net.encoder(content), net.encoder(style)
    case.check("content.relu4_1", features)
    first = net.alignments[0]
    c, s = (F.relu6(first.conv_in(x)) for x in (features, theirs))
    case.check("align1.attention", first.attn(c, s))
    for i, align in enumerate(net.alignments, 1):
        features = align(features, theirs)
        case.check(f"fcs{i}", features)
    stylized = net.decoder(features)
    case.check("stylized", stylized)
    same_image(net, content, style, stylized)
    assert net(content[..., :90, :61], style).shape == (1, 3, 90, 61)

    shallow = {name: t for name, t in parts["encoder"].items() if int(name.split(".")[0]) < 45}
    PAMA.load(shallow, *(parts[tag] for tag in order[1:]))


def wrong(parts: Mapping[str, Mapping[str, Tensor]], load: type[PAMA] | type[SANet], order: tuple[str, ...]) -> str:
    with pytest.raises(ValueError) as caught:
        load.load(*(parts[tag] for tag in order))
    return str(caught.value)


def test_wrong_files_are_told_in_one_line() -> None:
    parts = files(Case("sanet"))
    assert wrong(parts, SANet, ("vgg", "transformer", "decoder")).startswith("not a decoder of VGG19 features: ")
    assert "not a style-attentional transformer" in wrong(parts, SANet, ("vgg", "decoder", "decoder"))
    assert "not the normalised VGG19" in wrong(parts, SANet, ("decoder", "decoder", "transformer"))
    assert "not an alignment module" in wrong(parts, PAMA, ("vgg", "transformer", "transformer", "decoder", "decoder"))
    parts["decoder"]["28.bias"] = torch.zeros(4)
    assert "28.bias is [4] instead of [3]" in wrong(parts, SANet, ("vgg", "decoder", "transformer"))
    del parts["decoder"]["28.bias"]
    told = wrong(parts, SANet, ("vgg", "decoder", "transformer"))
    assert "1 of 18 tensors are missing (28.bias)" in told and "\n" not in told


def test_statistics_are_unbiased() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    mean, std = moments(x)
    assert float(mean) == 2.5 and float(std) == pytest.approx((5 / 3 + 1e-5) ** 0.5)
    assert float(normalised(x).square().sum()) == pytest.approx(3, rel=1e-4)
    with torch.device("meta"):
        assert Decoder()(torch.empty(1, 512, 2, 3)).shape == (1, 3, 16, 24)
