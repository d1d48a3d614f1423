"""The Swapping Autoencoder: codes, generator and swaps against the published networks' numbers."""

import numpy as np
import pytest
import torch

from models.baselines.sae import SAE, Generator, load_encoder, load_generator, unit
from pipeline import images
from tests.support.goldens import Case


def noises(case: Case) -> list[torch.Tensor]:
    return [torch.from_numpy(case.input(s["name"])) for s in case.case["inputs"] if s["name"].startswith("noise_")]


def test_codes() -> None:
    case = Case("sae_encoder")
    net = load_encoder(case.tensors())
    image = torch.from_numpy(case.input("image"))
    first = net.FromRGB(image)
    case.check("fromrgb", first)
    case.check("midpoint", net.DownToSpatialCode(first))
    for names, codes in ((("sp_raw", "gl_raw"), net.raw(image)), (("sp", "gl"), net(image))):
        for name, code in zip(names, codes, strict=True):
            case.check(name, code)
    assert sum(p.numel() for p in net.parameters()) == 30_584_872


def test_the_generator() -> None:
    case = Case("sae_generator")
    net = load_generator(case.tensors())
    structure, texture = (torch.from_numpy(case.input(name)) for name in ("sp", "gl"))
    noise = noises(case)
    x = net.SpatialCodeModulation(unit(structure), unit(texture))
    case.check("SpatialCodeModulation", x)
    for i, name in enumerate(("HeadResnetBlock0", "HeadResnetBlock1", "UpsamplingResBlock16")):
        x = net.get_submodule(name)(x, unit(texture), iter(noise[2 * i : 2 * i + 2]))
        case.check(name, x)
    whole = net(structure, texture, noise)
    rgb = next(spec["of"] for spec in case.case["outputs"] if spec["name"].startswith("rgb"))
    case.check(rgb, whole)
    torch.testing.assert_close(net(3 * structure, 0.2 * texture, noise), whole, atol=1e-4, rtol=1e-3)
    assert sum(p.numel() for p in net.parameters()) == 25_064_743
    assert torch.equal(net(structure, texture), net(structure, texture))
    quiet = load_generator(case.tensors(), noise=False)
    assert torch.equal(quiet(structure, texture, noise), quiet(structure, texture, [*noise[:4], *2 * noise[4:8]]))


def test_swaps() -> None:
    case = Case("sae_swap")
    tensors = case.tensors()
    net = SAE.load(tensors)
    a, b = (torch.from_numpy(case.input(name)) for name in ("structure", "texture"))
    noise = noises(case)
    structure, own = net.encoder(a)
    theirs = net.encoder(b)[1]
    mixed = torch.lerp(own, theirs, 0.5)
    for name, code in (("sp", structure), ("gl_structure", own), ("gl_texture", theirs), ("gl_mixed", mixed)):
        case.check(name, code)
    outputs = {
        name: net.generator(structure, t, noise) for name, t in (("rec", own), ("half", mixed), ("swap", theirs))
    }
    for name, out in outputs.items():
        case.check(name, out)
    image = images.to_arrays(outputs["swap"])[0].astype(np.float32).transpose(2, 0, 1)
    case.check("swap_u8", image)
    for name, alpha in (("rec", 0.0), ("half", 0.5), ("swap", 1.0)):
        plain = net.generator(structure, {"rec": own, "half": mixed, "swap": theirs}[name])
        torch.testing.assert_close(net(a, b, alpha=alpha), plain.clamp(-1, 1))
    with pytest.raises(ValueError, match="a side is 104 px; expected multiples of 16, at least 112"):
        net(a[..., :104], b)

    with pytest.raises(ValueError, match=r"Dpatch\.x are neither of E nor of G"):
        SAE.load(tensors | {"Dpatch.x": torch.zeros(1)})
    short = {name: t for name, t in tensors.items() if name != "G.ToRGB.bias"}
    with pytest.raises(ValueError, match=r"not a Swapping Autoencoder's generator: 1 of \d+ tensors are missing"):
        SAE.load(short)
    with pytest.raises(ValueError, match=r"not a Swapping Autoencoder: no FromRGB\.Conv\.weight among 0 tensors"):
        SAE.load({name: t for name, t in tensors.items() if name.startswith("G.")})


def test_other_sizes_follow_from_the_tensors() -> None:
    torch.manual_seed(0)
    net = Generator(4, 6, (8, 16, 16), (16, 8, 4))
    again = load_generator(net.state_dict())
    assert [type(block.skip).__name__ for block in again.blocks()] == [
        "Layer", "Layer", "NoneType", "NoneType", "Layer", "Layer",
    ]  # fmt: skip
    assert again(torch.randn(1, 4, 3, 5), torch.randn(1, 6)).shape == (1, 3, 24, 40)
