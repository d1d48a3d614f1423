"""Training of the style head: pooled statistics are those of the union, groups attract, and a kill changes nothing."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbones.trunks import Trunk
from models.encoders.aladin import STATISTICS, Aladin, statistics
from models.losses.contrastive import multi_positive
from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from pipeline.training.loop import rows
from stages.pretrain import aladin, aladin_crops
from stages.pretrain.aladin_crops import Work
from tests.support import pretrainings

STEPS = 6


def test_pooled_statistics_are_those_of_the_union() -> None:
    torch.manual_seed(0)
    trunk = Trunk("vgg16")
    a = torch.rand(1, 3, 64, 64)
    stats = statistics(trunk, torch.cat([a, a.flip(-1), a.flip(-2)]))
    union = aladin_crops.pooled(stats[None])[0]
    first = slice(0, 128)  # the first layer sees hardly any border, where a union differs
    assert torch.allclose(union[first], stats[:, first].mean(0), atol=1e-2)
    twice = aladin_crops.pooled(stats[None, [0, 0]])[0]
    assert torch.allclose(twice, stats[0], atol=1e-5)
    flat = torch.zeros(2, STATISTICS)
    flat[1, :64] = 2.0  # two flat crops of different brightness have a deviation together
    assert torch.allclose(aladin_crops.pooled(flat)[64:128], torch.ones(64))


def test_crops_do_not_overlap() -> None:
    rgb = np.arange(256 * 256, dtype=np.uint32).reshape(256, 256)
    picture = np.stack([rgb >> 8, rgb & 255, rgb * 0], -1).astype(np.uint8)
    crops = aladin_crops.cut(picture, 48, np.random.default_rng(0))
    assert crops.shape == (aladin_crops.CROPS, 3, 48, 48)
    boxes = [((c[0].min(), c[0].max()), (c[1].min(), c[1].max())) for c in crops]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert any(p[1] < q[0] or q[1] < p[0] for p, q in zip(a, b, strict=True))


def slow_loss(codes: Tensor, groups: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al., term by term."""
    rows = codes.double().tolist()

    def shared(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / temperature)

    total, anchors = 0.0, 0
    for i, group in enumerate(groups):
        positives = [j for j, other in enumerate(groups) if other == group and j != i]
        if positives:
            below = sum(shared(i, k) for k in range(len(rows)) if k != i)
            total += -sum(math.log(shared(i, j) / below) for j in positives) / len(positives)
            anchors += 1
    return total / anchors


def test_the_loss_is_the_published_one() -> None:
    codes = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0))).requires_grad_()
    groups = [0, 1, 0, 2, 1, 0, 3]  # two rows have no positive
    loss = multi_positive(codes, torch.tensor(groups), 0.3)
    assert float(loss.detach()) == pytest.approx(slow_loss(codes.detach(), groups, 0.3), rel=1e-5)
    loss.backward()
    assert codes.grad is not None and bool(codes.grad.isfinite().all())
    assert float(multi_positive(codes.detach(), torch.arange(7), 0.3)) == 0


def test_views_of_a_step_share_no_crop_and_bring_their_group() -> None:
    setup = aladin.Setup(torch.zeros(40, 41, 256), np.full(40, 1 / 40), np.arange(40) // 4, 1.0, 10, 0)
    works, views, kept = aladin.sample_batch(dataclasses.replace(setup), 3)
    for own in views:
        crops = [c for view in own for c in aladin.SUBSETS[view]]
        assert len(crops) == len(set(crops)) and len(own) == 3
    assert len(set(works)) == len(works) and 0 < (kept == 0).mean() < 0.4
    again, other = aladin.sample_batch(setup, 3), aladin.sample_batch(setup, 4)
    assert np.array_equal(works, again[0]) and np.array_equal(kept, again[2])
    assert not np.array_equal(views, other[1])


def test_one_of_a_pair_brings_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aladin, "BATCH", 10)
    setup = aladin.Setup(torch.zeros(0), np.full(400, 1 / 400), np.arange(400) // 20, 1.0, 10, 0)
    works = aladin.sample_batch(setup, 0)[0]
    assert len(works) > 10 and all(np.count_nonzero(setup.group[works] == g) > 1 for g in setup.group[works])
    alone = dataclasses.replace(setup, group=np.arange(400))
    assert len(aladin.sample_batch(alone, 0)[0]) == 10


def test_sub_folders_are_style_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrainings.write_pictures(tmp_path / "style" / "ink", 2)
    pretrainings.write_pictures(tmp_path / "style", 1)
    pretrainings.write_pictures(tmp_path / "content", 1)
    pretrainings.write_pictures(tmp_path / "museum", 1)
    monkeypatch.setattr(aladin_crops.weights, "path", lambda name: tmp_path / "museum")
    works = aladin_crops.gather(tmp_path)
    assert {w.name: w.group for w in works if w.name.startswith("ink")} == {"ink/0.png": "ink/", "ink/1.png": "ink/"}
    assert sorted(w.group for w in works if w.name == "0.png") == ["content/0.png", "museum/0.png", "style/0.png"]
    assert len({aladin.is_held_out(w) for w in works if w.group == "ink/"}) == 1
    with pytest.raises(UserError, match="no images to learn styles from"):
        aladin_crops.gather(tmp_path / "style")


def collected(count: int = 48, groups: int | None = None) -> tuple[np.ndarray, list[Work]]:
    """Statistics in which a style hides behind a larger nuisance, and their works."""
    rng = np.random.default_rng(0)
    group = np.arange(count) % (groups or count)
    style = (rng.standard_normal((groups or count, 1, 6)) @ rng.standard_normal((6, STATISTICS)))[group]
    nuisance = rng.standard_normal((count, aladin_crops.CROPS, 30)) @ rng.standard_normal((30, STATISTICS), np.float32)
    works = [
        Work(Path(f"{i}.png"), f"{i}.png", f"g{g}/" if groups else f"style/{i}.png", 1.0, str(i))
        for i, g in enumerate(group)
    ]
    return np.abs(style + 1.5 * nuisance).astype(np.float16), works


def test_training_beats_the_statistics_it_starts_from(tmp_path: Path) -> None:
    stats, works = collected()
    ctx = Context(profile.load("portable"), run=tmp_path)
    done, head = aladin.fit(ctx, tmp_path, stats[:44], works[:44], 10, None, {})
    with torch.inference_mode():
        codes = F.normalize(head(torch.from_numpy(stats[44:].astype(np.float32))), dim=-1)
    told = [row["unexplained"] for row in rows(tmp_path)]
    assert told[-1] < 0.9 * told[0]  # the auxiliary task is learnt beside
    assert done == 10 and head.fc1.weight.shape == (512, STATISTICS)
    assert codes.shape == (4, aladin_crops.CROPS, 256) and bool(torch.isfinite(codes).all())
    scores = aladin.held_out(stats[:44], head, np.array([w.group for w in works[:44]]))
    assert scores.keys() == {"held_out_top1_raw", "held_out_top1"}
    assert scores["held_out_top1"] >= scores["held_out_top1_raw"]


def test_works_come_together_by_their_groups(tmp_path: Path) -> None:
    stats, works = collected(44, groups=6)
    group = np.array([w.group for w in works])
    ctx, found = Context(profile.load("portable"), run=tmp_path), {}
    for name, own in (("groups", works), ("alone", [dataclasses.replace(w, group=w.name) for w in works])):
        head = aladin.fit(ctx, tmp_path / name, stats, own, 80, None, {})[1]
        found[name] = aladin.held_out(stats, head, group)
    raw = found["groups"]["held_out_group_top1_raw"]
    assert found["groups"]["held_out_group_top1"] > 0.9 and max(raw, found["alone"]["held_out_group_top1"]) < 0.5
    assert found["alone"]["held_out_top1"] > 0.9 > found["groups"]["held_out_top1"]


@pytest.mark.weights
def test_killed_in_mid_run_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aladin, "SAVE_EVERY", 2)
    stats, works = collected(64)
    calls = []

    def collect(ctx: Context, folder: Path, listed: list[Work], size: int, count: int) -> np.ndarray:
        calls.append(folder)  # the statistics themselves have a test of their own
        return stats[:count]

    monkeypatch.setattr(aladin, "gather", lambda data: works)
    monkeypatch.setattr(aladin, "collect", collect)
    found = []
    for name, kill in (("killed", True), ("whole", False)):
        ctx, output = Context(profile.load("portable"), run=tmp_path / name), tmp_path / f"{name}.safetensors"

        def run(ctx: Context = ctx, output: Path = output, steps: int = STEPS) -> None:
            aladin.run(ctx, data=tmp_path / "data", steps=steps, output=output)

        if kill:
            pretrainings.kill_at(monkeypatch, aladin, 5, run)
            assert checkpoint.load(ctx.run / aladin.NAME / "checkpoint.safetensors")[1]["step"] == 4
        run()
        tensors, meta = checkpoint.load(output)
        assert meta["command"].endswith(f"--steps {STEPS}") and 0 <= meta["held_out_top1"] <= 1
        found.append(
            (
                pretrainings.saved(ctx.run / aladin.NAME / "checkpoint.safetensors"),
                tensors,
                pretrainings.log(ctx.run / aladin.NAME),
            )
        )
        recipe = checkpoint.load(ctx.run / aladin.NAME / "checkpoint.safetensors")[1]
        assert recipe["settings"]["data"].startswith("64 works ")
        with pytest.raises(UserError, match="was started with steps 6, not 7"):
            run(steps=7)
    pretrainings.assert_same(found[0][0], found[1][0])
    pretrainings.assert_same(found[0][1], found[1][1])
    assert found[0][2] == found[1][2] and [row["step"] for row in found[0][2]] == [1, 2, 3, 4, 5, 6]
    assert Aladin(found[0][1], trunk=Trunk("vgg16")).head.fc1.weight.shape == (512, STATISTICS)


@pytest.mark.weights
def test_statistics_are_computed_once_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pretrainings.write_pictures(tmp_path / "style", 3)
    works = [Work(p, p.name, f"style/{p.name}", 1.0) for p in sorted(data.iterdir())]
    ctx = Context(profile.load("portable"), run=tmp_path)
    first = aladin_crops.collect(ctx, tmp_path / "a", works, 32, 2).copy()
    whole = aladin_crops.collect(ctx, tmp_path / "a", works, 32, 3).copy()
    assert np.array_equal(whole[:2], first) and np.array_equal(
        whole, aladin_crops.collect(ctx, tmp_path / "b", works, 32, 3)
    )
    monkeypatch.setattr(aladin_crops, "Aladin", None)  # nothing is left to compute
    assert np.array_equal(aladin_crops.collect(ctx, tmp_path / "a", works, 32, 3), whole)
