"""Critics against the published networks, and the region-matched patches they see."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import windows
from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.losses import adversarial, region_patches
from models.stylegan_ops import fir
from tests.support.goldens import Case


@pytest.mark.parametrize("size", [32, 128])
def test_patch_discriminator_equals_the_published_one(size: int) -> None:
    case = Case(f"sae_dpatch{size}")
    net = PatchDiscriminator.load({f"Dpatch.{name}": t for name, t in case.tensors().items()})
    assert net.size == size
    with torch.inference_mode():
        ref, fake = (net.features(torch.from_numpy(case.input(name))) for name in ("ref", "fake"))
        mean = ref.mean(1, keepdim=True).expand_as(ref)
        case.check("features_ref", ref.flatten(0, 1))
        case.check("features_ref_aggregated", mean.flatten(0, 1))
        case.check("pred_plain", net.score(ref, fake).reshape(-1, 1))
        case.check("pred_aggregated", net.score(mean, fake).reshape(-1, 1))
        both = net(torch.from_numpy(case.input("ref")), torch.from_numpy(case.input("fake")))
        case.check("pred_aggregated", both.reshape(-1, 1))


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("sae_imaged256", {"image": "pred"}),
        ("sg2_disc256", {"image1": "score1", "image4": "score4"}),
    ],
)
def test_image_discriminator_equals_the_published_ones(name: str, images: dict[str, str]) -> None:
    case = Case(name)
    net = ImageDiscriminator.load(case.tensors())
    assert net.size == 256
    with torch.inference_mode():
        for image, output in images.items():
            case.check(output, net(torch.from_numpy(case.input(image))))
        if name == "sae_imaged256":
            case.check("features", net.features(torch.from_numpy(case.input("image"))))


@pytest.mark.parametrize("size", [16, 64])
def test_discriminators_of_other_sizes_load_what_they_save(size: int) -> None:
    torch.manual_seed(size)
    for net in (ImageDiscriminator(size, base=512, top=24, stddev=True), PatchDiscriminator(size=size, width=0.05)):
        again = type(net).load(net.state_dict())
        x = torch.randn(1, 3, 3, size, size)
        one, two = ((n(x[0]) if isinstance(n, ImageDiscriminator) else n(x, x)) for n in (net.eval(), again))
        assert torch.equal(one, two)


@pytest.mark.parametrize(("size", "names"), [(1024, ["1024x1024", "512x512", *"123456"]), (64, [*"3456"])])
def test_the_swapping_autoencoder_names_layers_by_their_size(size: int, names: list[str]) -> None:
    net = ImageDiscriminator(size, base=1024, top=16)
    place = {str(i): name for i, name in enumerate(["0", *names])}
    theirs = {
        re.sub(r"^convs\.(\d+)", lambda m: f"D.stylegan2_D.convs.{place[m[1]]}", name): t
        for name, t in reversed(net.state_dict().items())
    }
    again = ImageDiscriminator.load({n if n.startswith("D.") else f"D.stylegan2_D.{n}": t for n, t in theirs.items()})
    assert again.size == size
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in net.state_dict().items())


def test_wrong_discriminators_are_told_apart() -> None:
    state = PatchDiscriminator(width=0.05).state_dict()
    with pytest.raises(ValueError, match="not a StyleGAN2 image discriminator"):
        ImageDiscriminator.load(state)
    with pytest.raises(ValueError, match=r"not a patch co-occurrence discriminator.*no convs.5"):
        PatchDiscriminator.load(ImageDiscriminator(16, base=512, top=24).state_dict())
    with pytest.raises(ValueError, match=r"1 of 32 tensors are missing .pairlinear.3.bias"):
        PatchDiscriminator.load({n: t for n, t in state.items() if n != "pairlinear.3.bias"})
    for name, shape in (("convs.5.skip.conv.weight", ()), ("pairlinear.0.weight", ()), ("convs.0.conv.weight", (0, 3))):
        with pytest.raises(ValueError, match=r"weight is \[.*\]; expected at least 1 dimensions"):
            PatchDiscriminator.load(state | {name: torch.zeros(shape)})
    wide = torch.zeros(1).expand(2**24, 3, 3, 3)  # a network of such width would not fit into any memory
    with pytest.raises(ValueError, match="have another shape"):
        PatchDiscriminator.load(state | {"convs.0.conv.weight": wide})
    with pytest.raises(ValueError, match=r"final_conv.conv.weight is \[3\]; expected at least 2 dimensions"):
        image = ImageDiscriminator(16, base=512, top=24).state_dict()
        ImageDiscriminator.load(image | {"final_conv.conv.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="blur"):
        kernels = {"convs.2.skip.Blur.kernel": torch.ones(4, 4), "convs.3.skip.Blur.kernel": fir()}
        PatchDiscriminator.load(state | kernels)


def test_a_files_own_blur_is_used() -> None:
    torch.manual_seed(0)
    net = ImageDiscriminator(16, base=512, top=24).eval()
    x = torch.randn(1, 3, 16, 16)
    plain, blurred = (
        ImageDiscriminator.load(net.state_dict() | {"convs.1.skip.0.kernel": kernel})
        for kernel in (torch.ones(1, 1), fir())
    )
    assert torch.equal(blurred(x), net(x)) and plain.convs(x).shape == net.convs(x).shape
    first = plain.convs[0](x)
    wanted = torch.nn.functional.conv2d(first, plain.convs[1].skip.conv.weight * first.shape[1] ** -0.5, stride=2)
    torch.testing.assert_close(plain.convs[1].skip(first), wanted)  # every second position, unfiltered


def test_narrow_discriminators_are_small_and_learn() -> None:
    torch.manual_seed(0)
    patch, image = PatchDiscriminator(width=0.3), ImageDiscriminator(64, base=1024, top=64)
    assert sum(p.numel() for p in patch.parameters()) < 2.5e6
    reference, real, fake = torch.rand(2, 3, 3, 32, 32), torch.rand(2, 3, 3, 32, 32), -torch.rand(2, 3, 3, 32, 32)
    optimiser = torch.optim.Adam(patch.parameters(), 2e-3, betas=(0.0, 0.99))
    losses = []
    for _ in range(6):
        loss = adversarial.discriminator_loss(patch(reference, real), patch(reference, fake))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    penalty = adversarial.r1(image(x), [x], 10.0, every=16)
    penalty.backward()
    assert float(penalty) > 0 and any(p.grad is not None and p.grad.abs().sum() > 0 for p in image.parameters())


def test_r1_is_the_squared_gradient() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    penalty = adversarial.r1(x @ torch.tensor([1.0, 2.0, 3.0]), [x], 2.0, every=16)
    assert torch.allclose(penalty, torch.tensor(16 * 14.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(4, 24), st.integers(4, 24))
def test_coverage_counts_the_mask(seed: int, size: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    share = windows.coverage(mask, size)
    for y in range(max(0, height - size + 1)):
        for x in range(max(0, width - size + 1)):
            assert share[y, x] == pytest.approx(mask[y : y + size, x : x + size].mean())
    assert share.shape == ((height - size + 1, width - size + 1) if size <= min(height, width) else (0, 0))


def test_draw_relaxes_then_gives_up() -> None:
    rng = np.random.default_rng(0)
    stripes = np.zeros((64, 64), bool)
    stripes[:, ::2] = True
    found = windows.sample_windows(stripes, 32, 5, (0.7, 0.5), rng)
    assert found is not None and np.all(found[1] == 0.5)
    assert windows.sample_windows(stripes, 32, 5, (0.7,), rng) is None
    few = np.zeros((64, 64), bool)
    few[:33, :32] = True
    found = windows.sample_windows(few, 32, 4, (1.0,), rng)
    assert found is not None and len(found[0]) == 4 and len({tuple(b) for b in found[0]}) == 2


def test_match_leaves_a_missing_region_out_and_cuts_the_right_pixels() -> None:
    content = np.full((2, 128, 128), 2, np.uint8)
    content[:, :48], content[:, 48:96] = 0, 1
    style = content.copy()
    style[1, :48] = 2
    matched = region_patches.sample_patch_groups(content, style, np.random.default_rng(1))
    assert list(zip(matched.sample, matched.region, strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    maps = torch.from_numpy(content)[:, None].float()
    cut = region_patches.crops(maps, matched.sample, matched.fake)
    assert cut.shape == (5, 3, 1, 32, 32)
    share = (cut == torch.from_numpy(matched.region).view(-1, 1, 1, 1, 1)).float().mean((2, 3, 4))
    assert float(share.min()) >= 0.7
    assert len(region_patches.sample_patch_groups(content * 0 + 255, style, np.random.default_rng(1))) == 0
