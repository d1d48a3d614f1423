"""ArtFlow: latents, both operators and the way back against the published network's numbers."""

import pytest
import torch

from models.baselines import artflow
from models.baselines.artflow import ActNorm, ArtFlow
from tests.support.goldens import Case


def test_adain() -> None:
    case = Case("artflow_adain")
    tensors = case.tensors()
    net = ArtFlow.load(tensors)
    content, style = (torch.from_numpy(case.input(name)) for name in ("content", "style"))
    first = net.blocks[0].flows[0]
    case.check("block0.flow0", first(torch.nn.functional.pixel_unshuffle(content, 2)))
    case.check("weight.block1.flow1", net.blocks[1].flows[1].invconv.matrix()[:, :, None, None])
    own, theirs = net.latents(content), net.latents(style)
    case.check("z_content", own)
    case.check("z_style", theirs)
    moved = artflow.adain(own, theirs)
    case.check("z_adain", moved)
    case.check("stylized", net.images(moved))
    case.check("reconstruction", net.images(own))
    out = net(content * 2 - 1, style * 2 - 1)
    torch.testing.assert_close(out, (net.images(moved) * 2 - 1).clamp(-1, 1), atol=1e-4, rtol=1e-4)
    back = net(content * 2 - 1, style * 2 - 1, alpha=0.0)
    torch.testing.assert_close(back, content * 2 - 1, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="a side is 62 px; expected multiples of 4"):
        net(content[..., :62, :], style)

    fresh = ActNorm(12)
    case.check("actnorm_init.out", fresh(torch.from_numpy(case.input("act"))))
    case.check("actnorm_init.loc", fresh.loc)
    case.check("actnorm_init.scale", fresh.scale)
    fresh(torch.zeros(1, 12, 2, 2))
    case.check("actnorm_init.loc", fresh.loc)  # set once

    with pytest.raises(ValueError, match="never seen an image"):
        ArtFlow.load(tensors | {"blocks.0.flows.3.actnorm.initialized": torch.tensor(0, dtype=torch.uint8)})
    del tensors["blocks.1.flows.7.coupling.net.4.scale"]
    with pytest.raises(ValueError, match=r"not ArtFlow: 1 of 288 tensors are missing \(blocks.1.flows.7.coupling"):
        ArtFlow.load(tensors)


def test_wct_of_each_image_by_itself() -> None:
    case = Case("artflow_wct")
    net = ArtFlow.load_wct(case.tensors())
    content, style = (torch.from_numpy(case.input(name)) for name in ("content", "style"))
    own, theirs = net.latents(content), net.latents(style)
    case.check("z_content", own)
    case.check("z_style", theirs)
    moved = artflow.wct(own, theirs)
    case.check("z_wct", moved)
    case.check("stylized", net.images(moved))
    low = [torch.from_numpy(case.input(name)) for name in ("low_c", "low_s")]
    case.check("wct_rank_deficient", artflow.whiten_and_colour(*low))
    two = artflow.wct(torch.cat([own, own.flip(3)]), torch.cat([theirs, theirs.flip(2)]))
    torch.testing.assert_close(two[1].flip(2), two[0], atol=1e-3, rtol=1e-3)
