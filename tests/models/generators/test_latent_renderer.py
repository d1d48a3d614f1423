"""The renderer that inversions optimise on gives the generator's own pictures and gradients."""

import pytest
import torch
from torch import Tensor

from models.generators import mobilestylegan
from models.generators.latent_renderer import LatentRenderer, narrow_type
from models.generators.mobilestylegan import NUM_WS, MobileStyleGAN


@pytest.fixture(scope="module")
def generator() -> MobileStyleGAN:
    """The 256 px cut, narrow, with random weights of a size that keeps its pictures in range."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilestylegan, "WIDTHS", (32, 32, 32, 32, 16, 8, 8))
        torch.manual_seed(0)
        net = MobileStyleGAN(256)
        net.constant.data = torch.randn(1, 512, 4, 4)
        for name, tensor in net.named_parameters():
            scale = 0.02 if "modulation.weight" in name or ".up.weight" in name else tensor[0].numel() ** -0.5
            tensor.data = torch.randn(tensor.shape) * scale + ("modulation.bias" in name or ".up.bias" in name)
        return net.eval()


def seen(render: object, latent: Tensor) -> tuple[Tensor, Tensor]:
    """A picture and the gradient of a lopsided loss of it."""
    latent = latent.clone().requires_grad_()
    picture = render(latent)  # type: ignore[operator]
    ((picture - 0.3).square() * torch.linspace(0, 1, 256)).mean().backward()
    assert latent.grad is not None
    return picture.detach(), latent.grad


def test_pictures_and_gradients_are_the_generators(generator: MobileStyleGAN) -> None:
    latent = torch.randn(1, NUM_WS, 512, generator=torch.Generator().manual_seed(1))
    picture, gradient = seen(generator, latent)
    ours, slope = seen(LatentRenderer(generator), latent)
    assert picture.std() > 0.1 and ours.shape == (1, 3, 256, 256)
    torch.testing.assert_close(ours, picture, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slope, gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)
    assert bool((slope[:, 14:] == 0).all()) and bool(slope[:, :14].any(2).all())
    narrow, rough = seen(LatentRenderer(generator, torch.bfloat16), latent)
    assert narrow.dtype is torch.float32 and float((narrow - picture).abs().mean()) < 0.02 * float(picture.std())
    assert float(torch.cosine_similarity(rough.flatten(), gradient.flatten(), 0)) > 0.99


def test_what_it_cannot_render_is_refused(generator: MobileStyleGAN) -> None:
    with pytest.raises(ValueError, match=r"one latent \[1, num_ws, 512\], got \(2, 18, 512\)"):
        LatentRenderer(generator)(torch.zeros(2, NUM_WS, 512))
    with pytest.raises(ValueError, match="needs the 256 px head, this generator gives 1024 px"):
        LatentRenderer(MobileStyleGAN(1024))


def test_bfloat16_is_for_processors_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert narrow_type("cpu") is torch.bfloat16 and narrow_type("cuda") is torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert narrow_type("cpu") is torch.float32
