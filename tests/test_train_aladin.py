"""Training of the style head: pooled statistics are those of the union, and training tells works apart."""

import numpy as np
import torch
from torch.nn import functional as F

from models.aladin import STATISTICS, statistics
from models.vgg import Trunk
from stages import train_aladin


def test_pooled_statistics_are_those_of_the_union() -> None:
    torch.manual_seed(0)
    trunk = Trunk("vgg16")
    a = torch.rand(1, 3, 64, 64)
    stats = statistics(trunk, torch.cat([a, a.flip(-1), a.flip(-2)]))
    union = train_aladin.pooled(stats[None])[0]
    first = slice(0, 128)  # the first layer sees hardly any border, where a union differs
    assert torch.allclose(union[first], stats[:, first].mean(0), atol=1e-2)
    twice = train_aladin.pooled(stats[None, [0, 0]])[0]
    assert torch.allclose(twice, stats[0], atol=1e-5)
    flat = torch.zeros(2, STATISTICS)
    flat[1, :64] = 2.0  # two flat crops of different brightness have a deviation together
    assert torch.allclose(train_aladin.pooled(flat)[64:128], torch.ones(64))


def test_crops_do_not_overlap() -> None:
    rgb = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256)
    picture = np.stack([rgb >> 8, rgb & 255, rgb * 0], -1).astype(np.uint8)
    crops = train_aladin.cut(picture, 48, np.random.default_rng(0))
    assert crops.shape == (train_aladin.CROPS, 3, 48, 48)
    boxes = [((c[0].min(), c[0].max()), (c[1].min(), c[1].max())) for c in crops]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert any(p[1] < q[0] or q[1] < p[0] for p, q in zip(a, b, strict=True))


def test_training_beats_the_statistics_it_starts_from() -> None:
    rng = np.random.default_rng(0)
    style = rng.standard_normal((48, 1, 6)) @ rng.standard_normal((6, STATISTICS))
    nuisance = rng.standard_normal((48, train_aladin.CROPS, 30)) @ rng.standard_normal((30, STATISTICS), np.float32)
    stats = np.abs(style + 1.5 * nuisance).astype(np.float16)
    head = train_aladin.fit(stats[:44], np.ones(44), 10, 0)
    with torch.inference_mode():
        codes = F.normalize(head(torch.from_numpy(stats[44:].astype(np.float32))), dim=-1)
    assert head.fc1.weight.shape == (512, STATISTICS) and codes.shape == (4, train_aladin.CROPS, 256)
    assert bool(torch.isfinite(codes).all())
    scores = train_aladin.held_out(stats[:44], head)
    assert scores["held_out_top1"] >= scores["held_out_top1_raw"]
