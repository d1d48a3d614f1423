"""AdaIN: the layout of the published networks, and what stylising does to an image."""

import pytest
import torch

from models.baselines.adain import AdaIN, moments
from tests.models.metrics.test_lpips import patterns


def test_layout_is_the_published_one() -> None:
    net = AdaIN()
    convs = [(k.split(".")[0], tuple(v.shape[:2])) for k, v in net.encoder.state_dict().items() if k.endswith("weight")]
    assert [int(i) for i, _ in convs] == [0, 2, 5, 9, 12, 16, 19, 22, 25, 29]
    assert convs[-1][1] == (512, 256) and len(net.encoder) == 31
    decoder = [int(k.split(".")[0]) for k in net.decoder.state_dict() if k.endswith("weight")]
    assert decoder == [1, 5, 8, 11, 14, 18, 21, 25, 28]


def test_moments_of_the_style_replace_the_contents() -> None:
    torch.manual_seed(0)
    net = AdaIN()
    content, style = torch.rand(2, 3, 64, 64), torch.rand(1, 3, 48, 48) * 0.2
    assert net(content, style).shape == content.shape
    assert torch.allclose(net(content, style, alpha=0), net.decode(net.encode(content)))
    apart = net.transfer(net.encode(content), moments(net.encode(style)))
    assert torch.equal(net(content, style), apart)
    mean, std = moments(torch.full((1, 2, 4, 4), 3.0))
    assert float(mean[0, 0]) == 3 and float(std[0, 0]) == pytest.approx(1e-5**0.5)


@pytest.mark.weights
def test_real_weights_reconstruct_and_restyle() -> None:
    from pipeline import images, weights

    net = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder"))
    content, style = images.to_tensor(images.decode(weights.path("astronaut").read_bytes(), 128)), patterns()[1]
    plain, styled = net(content, content), net(content, style)

    def likeness(x: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([x.flatten(), content.flatten()]))[0, 1])

    assert likeness(plain) > max(0.65, likeness(styled))
    want, before, after = (net.encode(x).mean((2, 3)) for x in (style, plain, styled))
    assert float((after - want).abs().mean()) < float((before - want).abs().mean())
