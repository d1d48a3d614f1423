"""FaRL's warps against facer's, and the parser around a network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.parsing import farl
from tests.support.goldens import Case


@pytest.mark.parametrize("kind", ["lapa", "celebm"])
def test_the_warps_equal_facers(kind: str) -> None:
    case = Case(f"facer_{kind}448")
    warp = farl.WARPS[kind](case.input("points"))
    images = torch.from_numpy(case.input("image"))[case.input("image_ids")]
    height, width = images.shape[-2:]
    grid, back = warp.grid(height, width), warp.inverse_grid(height, width)
    case.check("matrix", warp.matrix)
    case.check("grid", grid.permute(0, 3, 1, 2))
    case.check("inv_grid", back.permute(0, 3, 1, 2))
    case.check("net_input", farl.sample(images / 255, grid))
    logits = torch.from_numpy(case.input("logits"))
    case.check("seg_logits", farl.sample(logits, back))
    net = farl.FaceParser(lambda x: logits, kind, logits.shape[1])
    case.check("seg_logits", net.logits(images / 127.5 - 1, case.input("points")))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["lapa", "celebm"]), st.integers(0, 2**31))
def test_a_warp_and_its_inverse_cancel(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.array(farl.TEMPLATE, np.float32)[None] * rng.uniform(0.2, 0.6) + rng.normal(0, 4, (3, 5, 2))
    warp = farl.WARPS[kind](points.astype(np.float32))
    there = warp.inverse_grid(60, 90)  # image pixel -> position in the square
    back = farl.sample(warp.grid(60, 90).permute(0, 3, 1, 2), there).permute(0, 2, 3, 1)
    x, y = torch.meshgrid((torch.arange(90) + 0.5) / 45 - 1, (torch.arange(60) + 0.5) / 30 - 1, indexing="xy")
    inside = there.abs().amax(-1) < 0.95
    assert inside.any() and (back - torch.stack([x, y], -1))[inside].abs().max() < 0.02


def test_the_answer_can_have_another_size_than_the_picture() -> None:
    points = np.array(farl.TEMPLATE, np.float32)[None]
    ramp = torch.linspace(-1, 1, 448).expand(1, 2, 448, 448)
    net = farl.FaceParser(lambda x: ramp, "celebm", 2)
    image = torch.rand(1, 3, 512, 512)
    large, small = net.logits(image, points), net.logits(image, points, 256)
    assert small.shape == (1, 2, 256, 256)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert torch.allclose(halved[..., 40:216, 40:216], small[..., 40:216, 40:216], atol=1e-3)
    finer = farl.FaceParser(lambda x: torch.linspace(-1, 1, 512).expand(1, 2, 512, 512), "celebm", 2)
    assert torch.allclose(finer.logits(image, points)[..., 80:432, 80:432], large[..., 80:432, 80:432], atol=5e-3)
    with pytest.raises(ValueError, match="has 2 classes, expected 19"):
        farl.FaceParser(lambda x: ramp, "celebm", 19).logits(image, points)
    with pytest.raises(ValueError, match="expected one of lapa, celebm"):
        farl.FaceParser(lambda x: ramp, "ibug", 2)
