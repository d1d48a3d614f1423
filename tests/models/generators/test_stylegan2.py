"""StyleGAN2 against the references, at sizes they have no numbers for, and with files that are something else."""

import pytest
import torch

from models.generators.stylegan2 import StyleGAN2, layer_table
from tests.support.goldens import Case


def published(size: int, multiplier: float = 2, depth: int = 2, *, noises: bool = True) -> dict[str, torch.Tensor]:
    """A generator's random tensors in the published layout."""
    net = StyleGAN2(size, multiplier, depth, noises=noises)
    rng = torch.Generator().manual_seed(size)
    return {
        name: t if name.endswith("kernel") else torch.randn(t.shape, generator=rng)
        for name, t in net.state_dict().items()
    }


@torch.inference_mode()
def test_generator_equals_the_reference() -> None:
    case = Case("sg2_gen256")
    net = StyleGAN2.load(case.tensors())
    assert (net.native, net.multiplier, net.num_ws, len(net.style)) == (256, 2, 14, 9)
    case.check("wplus.image", net(torch.from_numpy(case.input("wplus"))))
    w, w2 = (net.map(torch.from_numpy(case.input(name))) for name in ("z", "z2"))
    case.check("z.w", w)
    case.check("z.image", net(w))
    case.check("trunc.w", net.truncate(w, 0.7))
    case.check("trunc.image", net(net.truncate(w, 0.7)))
    case.check("mix.image", net(torch.cat([w[:, None].expand(-1, 6, -1), w2[:, None].expand(-1, 8, -1)], 1)))


@torch.inference_mode()
def test_deltas_equal_the_reference() -> None:
    case = Case("hs_gen256_deltas")
    net = StyleGAN2.load(case.tensors())
    rows = [(row.name, row.shape) for row in net.layer_table()]
    assert rows == [(row["name"].removesuffix(".conv"), tuple(row["weight"][1:])) for row in case.case["layers"]]
    wplus = torch.from_numpy(case.input("wplus"))
    case.check("image_nodelta", net(wplus))
    case.check("image", net(wplus, [torch.from_numpy(case.input(f"delta.{i}")) for i in range(len(rows))]))


@pytest.mark.parametrize(("size", "multiplier", "depth"), [(8, 2, 8), (64, 2, 2), (32, 0.5, 2), (128, 0.5, 2)])
@torch.inference_mode()
def test_sizes_are_inferred(size: int, multiplier: float, depth: int) -> None:
    state = published(size, multiplier, depth)
    net = StyleGAN2.load(state)
    assert (net.native, len(net.style) - 1) == (size, depth) and (size < 32 or net.multiplier == multiplier)
    assert {name: t.shape for name, t in net.state_dict().items()} == {name: t.shape for name, t in state.items()}
    w = net.map(torch.randn(2, 512))
    image = net(w)
    assert image.shape == (2, 3, size, size) and image.isfinite().all()
    deltas = [0.1 * torch.randn(2, *row.shape) for row in net.layer_table()]
    changed = net(w, deltas)
    for i in range(2):  # a sample's image does not depend on the rest of the batch
        torch.testing.assert_close(
            changed[i : i + 1],
            net(w[i : i + 1], [d[i : i + 1] for d in deltas]),
            atol=1e-4 * float(changed.abs().max()),
            rtol=1e-4,
        )
    assert not torch.allclose(changed, image, atol=1e-2)


def test_tables_have_the_published_lengths() -> None:
    assert [len(layer_table(size)) for size in (256, 512, 1024)] == [20, 23, 26]
    images = [row.index for row in layer_table(1024) if row.kind == "to_img"]
    assert images == [1, 4, 7, 10, 13, 16, 19, 22, 25]
    assert [row.shape[:2] for row in layer_table(1024)[-3:]] == [(32, 64), (32, 32), (3, 32)]
    assert layer_table(256, 1)[11].shape == (256, 512, 3, 3)
    assert layer_table(64, 0.5)[8].shape == (256, 512, 3, 3)  # NVIDIA's narrower ones are so at 32 px as well
    for size, count in ((256, 30_034_338), (1024, 30_370_060)):
        with torch.device("meta"):
            assert sum(p.numel() for p in StyleGAN2(size).parameters()) == count


@torch.inference_mode()
def test_noise_is_fixed_random_or_given() -> None:
    net = StyleGAN2.load(published(16))
    w = torch.randn(1, 512)
    assert torch.equal(net(w), net(w))
    torch.manual_seed(0)
    assert not torch.equal(net(w, noise="random"), net(w, noise="random"))
    maps = [getattr(net.noises, f"noise_{i}") for i in range(5)]
    assert torch.equal(net(w, noise=maps), net(w))
    bare = published(16, noises=False)
    one, two = StyleGAN2.load(bare), StyleGAN2.load(bare)
    assert torch.equal(one(w), two(w)) and not any("noises" in name for name in one.state_dict())
    with pytest.raises(ValueError, match="noise is 'none'"):
        net(w, noise="none")


@torch.inference_mode()
def test_images_are_pooled_and_modulated_kernels_follow_the_definition() -> None:
    state = published(32)
    net, small = StyleGAN2.load(state), StyleGAN2.load(state, size=8)
    w = torch.randn(1, 512)
    pooled = net(w).reshape(1, 3, 8, 4, 8, 4).mean((3, 5))
    torch.testing.assert_close(small(w), pooled, atol=1e-4, rtol=1e-4)
    conv, x = net.convs[1].conv, torch.randn(1, 512, 8, 8)
    kernel = conv.weight[0] * conv.scale * conv.modulation(w)[0][:, None, None]
    kernel = kernel * (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
    torch.testing.assert_close(conv(x, w), torch.nn.functional.conv2d(x, kernel, padding=1), atol=1e-4, rtol=1e-4)


def test_the_mean_latent_is_that_of_the_seed() -> None:
    net = StyleGAN2.load(published(8))
    assert torch.equal(net.mean_latent(3000, 1), net.mean_latent(3000, 1))
    z = torch.randn(3000, 512, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net.mean_latent(3000, 1), net.map(z).mean(0), atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="no latent_avg"):
        net.truncate(torch.zeros(1, 512), 0.7)


def test_what_does_not_fit_is_named() -> None:
    state = published(64)
    with pytest.raises(ValueError, match=r"not a StyleGAN2 generator: 0 resolution blocks"):
        StyleGAN2.load({"conv.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing \(convs.3.conv.modulation.bias\)"):
        StyleGAN2.load({name: t for name, t in state.items() if name != "convs.3.conv.modulation.bias"})
    with pytest.raises(ValueError, match=r"1 tensors are unexpected \(extra\)"):
        StyleGAN2.load(state | {"extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"multiplier 2 .*convs.7.conv.weight is \[1, 256, 512, 3, 3\] instead of"):
        StyleGAN2.load(state | {"convs.7.conv.weight": torch.zeros(1, 256, 512, 3, 3)})
    with pytest.raises(ValueError, match=r"200 channels at 64 px; expected 256 times"):
        StyleGAN2.load(state | {"to_rgbs.3.conv.weight": torch.zeros(1, 3, 200, 1, 1)})
    with pytest.raises(ValueError, match=r"cannot give images of 128 px"):
        StyleGAN2.load(state, size=128)
    with pytest.raises(ValueError, match=r"latent_avg is \[18, 512\]"):
        StyleGAN2.load(state | {"latent_avg": torch.zeros(18, 512)})
    net = StyleGAN2.load(state)
    with pytest.raises(ValueError, match="18 latents for a generator of 64 px; expected 10"):
        net(torch.zeros(1, 18, 512))
    with pytest.raises(ValueError, match="3 deltas for a generator of 64 px; expected 14"):
        net(torch.zeros(1, 512), [None] * 3)
