"""The details of a photo: its lightness comes back but for its grain, no colour does, as strong as the contrast."""

import pytest
import torch
import torch.nn.functional as F

from models.generators import details, palette
from models.generators import tone as tones
from models.generators.details import LUMA
from models.generators.region_weights import RegionWeights
from tests.models.generators.test_palette import MAP, noise, with_palette

WHERE = RegionWeights(MAP)


def photo() -> torch.Tensor:
    """Another image with an inversion of `noise(1)`: strands a pixel wide, and a red blot."""
    strands = torch.zeros(1, 3, 256, 256)
    strands[..., 8:250:8], strands[:, 0, 200:220, 90:110] = -0.3, 0.4
    return noise(1) + strands


def lightness(image: torch.Tensor) -> torch.Tensor:
    return (image * torch.tensor(LUMA)[:, None, None]).sum(1)


def test_the_lightness_that_an_inversion_lacks_comes_back_and_no_colour() -> None:
    image, inversion = photo(), noise(1)
    found = details.details(image, inversion, WHERE, 1.0)
    tone = tones.tone(inversion, WHERE, None, found)
    whole = tones.toned(inversion, WHERE, tone, found)
    strands, back = lightness(image - inversion), lightness(whole - inversion)
    assert torch.allclose(back, details.without_grain(strands[:, None])[:, 0], atol=1e-5)
    assert float(back[0, 128, 32]) == pytest.approx(-0.15, abs=1e-5)  # a strand a pixel wide, at half and over three
    grain = 0.3 * ((torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1).expand(1, 3, 256, 256)
    rough = details.details(inversion + grain, inversion, WHERE, 1.0).lightness
    assert float(rough[..., 1:-1, 1:-1].abs().max()) < 1e-5
    assert torch.allclose(whole[:, 0] - whole[:, 2], inversion[:, 0] - inversion[:, 2], atol=1e-5)
    half = details.details(image, inversion, WHERE, 0.5)
    assert torch.allclose(tones.toned(inversion, WHERE, tone, half), (inversion + whole) / 2, atol=1e-5)
    nothing = details.details(inversion, inversion, WHERE, 1.0)
    assert torch.allclose(tones.toned(inversion, WHERE, tone, nothing), inversion, atol=1e-5)


def test_details_are_as_strong_as_the_drawing_and_its_palette_stays() -> None:
    inversion, drawn = noise(1), noise(2)
    found = details.details(photo(), inversion, WHERE, 1.0)
    shares = WHERE.weights(256)
    for scale in (0.25, 0.5, 8.0):
        own, base = (palette.measure(x, shares)[..., 3:] for x in (drawn * scale, inversion))
        got = tones.tone(drawn * scale, WHERE, None, found).detail
        assert torch.allclose(got, ((own + 0.01) / (base + 0.01)).clamp(max=1.2), atol=1e-5)
    wanted = palette.measure(noise(4), shares)
    for image in (drawn, drawn * 0.3):  # details do not carry the photo's colours back in
        tone = tones.tone(image, WHERE, wanted, found)
        seen, plain = tones.toned(image, WHERE, tone, found), with_palette(image, WHERE, wanted)
        inside = (MAP == 1).float()[:, None]
        seen, plain = (palette.measure(x, inside)[0, 0, :3] for x in (seen, plain))
        assert torch.allclose(seen, plain, atol=0.02)


def test_an_edit_keeps_details_where_it_changes_nothing_and_larger_pictures_have_them_too() -> None:
    inversion = noise(1)
    found = details.details(photo(), inversion, WHERE, 1.0)
    edited = inversion.clone()
    edited[..., 128:] += 0.3
    kept = details.kept(found, inversion.clamp(-1, 1), edited.clamp(-1, 1)).lightness
    assert torch.allclose(kept[..., :120], found.lightness[..., :120], atol=1e-5)
    assert not kept[..., 140:].any() and found.lightness[..., 140:].any()
    large = torch.zeros(1, 3, 1024, 1024)
    tone = tones.Tone(torch.ones(1, 3, 1), torch.ones(1, 3, 1), torch.zeros(1, 3, 3))
    small, mine = (
        F.adaptive_avg_pool2d(x[:, :1], 32) for x in (tones.toned(large, WHERE, tone, found), found.lightness)
    )
    assert mine.abs().max() > 0.05 and torch.allclose(small, mine, atol=0.005)
