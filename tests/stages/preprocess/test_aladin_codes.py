"""The style code stage: which windows it takes, and that a row depends on its own picture only."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models import windows
from pipeline import images, profile
from pipeline.caches.schema import Column
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, StageSpec
from stages.preprocess import aladin_codes, compatibility


def context() -> Context:
    return Context(profile.load("tiny"), run=Path("unused"))


def item(key: str, seed: int, *, hair: bool = True) -> Item:
    rgb = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    region = np.full((256, 256), 2, np.uint8)
    region[96:200, 60:190] = 1
    if hair:
        region[:96] = 0
    return Item(key, {"images.image": images.encode(rgb), "masks.region": region})


def test_codes_follow_the_regions() -> None:
    ctx = context()
    work = aladin_codes.spec(ctx).open(ctx)
    row, bald = work([item("a", 0), item("a", 0, hair=False)])
    assert isinstance(row, dict) and isinstance(bald, dict)
    patches = ctx.profile.aladin.patches
    assert row["boxes"].shape == (3, patches, 4) and row["iou"].shape == (3, patches)
    assert row["valid"].tolist() == [True, True, True] and bald["valid"].tolist() == [False, True, True]
    assert np.allclose(np.linalg.norm(row["code"], axis=1), 1, atol=1e-5)
    assert np.allclose(bald["code"][0], bald["image_code"], atol=1e-6) and (bald["boxes"][0] == -1).all()
    assert (bald["boxes"][1] == row["boxes"][1]).all() and (bald["code"][1] == row["code"][1]).all()
    for region in range(3):
        for (x0, y0, x1, y1), share in zip(row["boxes"][region], row["iou"][region], strict=True):
            inside = (item("a", 0)["masks.region"][y0:y1, x0:x1] == region).mean()
            assert x1 - x0 == y1 - y0 == 64 and share == np.float32(inside) and share >= ctx.profile.aladin.relaxed


@pytest.mark.parametrize(("share", "count"), [(0.9, 8), (0.004, 8), (0.004, 900), (0, 3)])
def test_windows_are_drawn_as_from_a_list_of_all_that_fit(share: float, count: int) -> None:
    mask = np.random.default_rng(1).random((70, 50)) < share
    found = windows.sample_windows(mask, 4, count, (0.99, 0.2), np.random.default_rng(2))
    sums = np.lib.stride_tricks.sliding_window_view(mask, (4, 4)).sum((2, 3))
    fit = np.flatnonzero(sums >= (16 if (sums == 16).any() else 4))
    assert (found is None) == (fit.size == 0)
    if found is not None:
        rng = np.random.default_rng(2)
        drawn = (
            rng.choice(fit, count, replace=False)
            if fit.size >= count
            else np.concatenate([rng.permutation(fit), rng.choice(fit, count - fit.size)])
        )
        y, x = np.divmod(drawn, sums.shape[1])
        assert found[0].tolist() == np.stack([x, y, x + 4, y + 4], 1).tolist()
        assert found[1].tolist() == (sums[y, x] / 16).tolist()


def test_a_row_depends_on_its_own_picture_and_the_seed_only() -> None:
    ctx = context()
    work = aladin_codes.spec(ctx).open(ctx)
    alone = work([item("b", 1)])[0]
    other, among, renamed = work([item("a", 0), item("b", 1), item("c", 1)])
    seeded = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, seed=1))
    reseeded = aladin_codes.spec(ctx).open(seeded)([item("b", 1)])[0]
    rows = (alone, among, renamed, other, reseeded)
    assert all(isinstance(row, dict) for row in rows)
    assert all(np.array_equal(alone[name], row[name]) for name in alone for row in (among, renamed))
    assert not any(np.array_equal(alone["boxes"], row["boxes"]) for row in (other, reseeded))
    assert {n: np.shape(v) for n, v in alone.items()} == {n: c.shape for n, c in aladin_codes.spec(ctx).columns.items()}


def test_a_picture_without_a_face_has_the_whole_code_everywhere() -> None:
    ctx = context()
    plain = item("x", 3)
    unknown = dataclasses.replace(plain, data={**plain.data, "masks.region": np.full((256, 256), 255, np.uint8)})
    row = aladin_codes.spec(ctx).open(ctx)([unknown])[0]
    assert isinstance(row, dict)
    assert not row["valid"].any() and np.allclose(row["code"], row["image_code"], atol=1e-6) and (row["iou"] == 0).all()


def test_windows_are_cut_at_the_pictures_own_resolution() -> None:
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    image = torch.stack([x, y, x])[None]
    cut = aladin_codes.crops(image, np.array([[10, 20, 74, 84]]), 128)
    assert cut.shape == (1, 3, 128, 128) and cut[0, 0, 0, 0] == 20 and cut[0, 1, 0, 0] == 40


def test_codes_of_two_encoders_are_not_mixed(tmp_path: Path) -> None:
    ctx = dataclasses.replace(context(), cache=tmp_path)
    for collection, kind in (("content", "vgg16"), ("style", "vit")):
        stage = StageSpec(
            name="aladin-codes",
            output="aladin",
            columns={"code": Column("f4")},
            params={"kind": kind},
            weights={kind: "ab" * 32},
            open=lambda ctx: lambda items: [{"code": 0.0} for _ in items],
        )
        source = dataclasses.replace(ctx, content=tmp_path / "in", style=tmp_path / "in")
        source.content.mkdir(exist_ok=True)
        (source.content / "a.png").write_text("")
        run_stage(stage, collection, source)
        if collection == "content":
            assert compatibility.one_encoder(ctx) == "vgg16 (vgg16 abababababab)"
    with pytest.raises(
        UserError, match=r"content/aladin\.h5 holds codes of vgg16 .*style/aladin\.h5 holds codes of vit"
    ):
        compatibility.one_encoder(ctx)


def test_the_profile_names_the_encoder() -> None:
    def of(**changes: object) -> Context:
        section = dataclasses.replace(context().profile.aladin, **changes)
        return dataclasses.replace(context(), profile=dataclasses.replace(context().profile, aladin=section))

    with pytest.raises(UserError, match="expected one of imagenet, vgg16, vit"):
        aladin_codes.spec(of(kind="vgg19"))
    with pytest.raises(UserError, match="'vit' needs input_size and whole_size of 224"):
        aladin_codes.spec(of(kind="vit"))
