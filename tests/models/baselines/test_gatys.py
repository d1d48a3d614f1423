"""Gatys' method: its losses and first steps against the notebook's, and what optimising does to an image."""

import pytest
import torch

from models.baselines import gatys
from models.baselines.gatys import Gatys, prepare, shown
from pipeline import weights
from tests.support.goldens import Case


def test_losses_gradient_and_first_steps_are_the_notebooks() -> None:
    case = Case("gatys_loss")
    net = Gatys.load(case.tensors(), case.case["reference"]["args"]["pool"])
    content, style = (prepare(torch.from_numpy(case.input(name))[None]) for name in ("content", "style"))
    case.check("prepared", content[0])
    grams, features = net.targets(content, style)
    for layer, target in zip(("r11", "r21", "r31", "r41", "r51"), grams, strict=True):
        case.check(f"gram_{layer}", target[0])
    case.check("content_target", features[0])
    image = (content + torch.from_numpy(case.input("offset"))).requires_grad_()
    terms = net.losses(image, grams, features)
    terms.sum().backward()
    case.check("layer_losses", terms)
    case.check("loss", terms.sum()[None])
    case.check("gradient", image.grad[0])
    case.check("shown", shown(image.detach())[0])

    image, seen = content.clone().requires_grad_(), []
    optimiser = torch.optim.LBFGS([image], lr=1, max_iter=2)

    def closure() -> float:
        optimiser.zero_grad()
        loss = net.losses(image, grams, features).sum()
        loss.backward()
        seen.append(float(loss.detach()))
        return seen[-1]

    optimiser.step(closure)
    case.check("lbfgs_losses", torch.tensor(seen))


def pair(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image and a striped one, [1, 3, size, size] in [-1, 1]; stored as decoded images are, channels last."""
    line = torch.linspace(-0.8, 0.8, size)
    content = torch.stack([line[:, None] * line, line[:, None].expand(size, size), -line.expand(size, size)])
    style = torch.sin(torch.arange(size) * 1.5).expand(3, size, size) * torch.tensor([0.9, 0.5, -0.3])[:, None, None]
    return content[None].contiguous(memory_format=torch.channels_last), style[None]


@pytest.mark.weights
def test_the_normalised_network_restyles() -> None:
    """The network that is here today: the style terms of the real weights fall while the content stays in sight."""
    net = Gatys.load(weights.tensors("adain-vgg19"))
    assert net.weights == gatys.NORMALISED
    content, style = pair(32)
    told: list[tuple[int, int]] = []
    out = net(content, style, calls=12, on_step=lambda *step: told.append(step))
    assert told == [(i, 12) for i in range(1, 13)]
    start, theirs, end = (prepare((x + 1) / 2) for x in (content, style, out))
    targets = net.targets(start, theirs)
    before, after = (net.losses(x, *targets).detach() for x in (start, end))
    assert float(after.sum()) < 0.5 * float(before.sum()) and float(before[-1]) == 0
    assert out.shape == content.shape and float(out.abs().max()) <= 1
    assert torch.equal(out, net(content, style, calls=12))


@pytest.mark.parametrize(("calls", "made"), [(1, 1), (25, 40)])
def test_calls_are_rounded_up_to_whole_steps_as_in_the_notebook(calls: int, made: int) -> None:
    torch.manual_seed(0)
    told: list[tuple[int, int]] = []
    Gatys(gatys.VGG19("avg"))(*pair(16), calls=calls, on_step=lambda *step: told.append(step))
    assert told == [(i, made) for i in range(1, made + 1)]


def test_wrong_files_are_told() -> None:
    with torch.device("meta"):
        state = gatys.VGG19().state_dict()
    with pytest.raises(ValueError, match=r"not VGG19: 1 of 32 tensors are missing \(conv5_4.bias\)"):
        Gatys.load({name: t for name, t in state.items() if name != "conv5_4.bias"})
    with pytest.raises(ValueError, match="not the normalised VGG19: 32 of 32 tensors are missing"):
        Gatys.load({"0.weight": torch.zeros(3, 3, 1, 1)})
    with pytest.raises(ValueError, match="pool is 'mean'; expected max or avg"):
        Gatys.load(state, "mean")
