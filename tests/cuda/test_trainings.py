"""On a GPU: one step of each training behind the weights, and every stage of the tiny profile."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import irse
from models.encoders import e4e, portable
from pipeline import images, profile
from pipeline.context import COLLECTIONS, Context
from pipeline.runner.run import run_stage
from stages.evaluate import comparison
from stages.loaders import generator as networks
from stages.preprocess import chain, shards
from stages.pretrain import aladin, inverter, output_head, parser
from stages.pretrain import generator as finetune_generator
from stages.train import run as train
from tests.stages.pretrain.test_aladin import collected
from tests.stages.pretrain.test_parser import label
from tests.support import pretrainings, small_run

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.weights,
    pytest.mark.slow,
]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(profile.load("portable"), run=tmp_path / "run", device="cuda")


def test_fit_head(ctx: Context, tmp_path: Path) -> None:
    assert output_head.run(ctx, images=2, steps=1, output=tmp_path / "head.safetensors") == 0


@pytest.mark.parametrize("kind", ["generator", "e4e"])
def test_trainings_of_stylegan2(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(pretrainings.stylegan2_context(tmp_path, "run", monkeypatch), device="cuda")
    for name in COLLECTIONS:
        pretrainings.write_pictures(tmp_path / "data" / name, 3)
    if kind == "generator":
        assert finetune_generator.run(small, data=tmp_path / "data", steps=1, batch=2) == 0
        return
    monkeypatch.setattr(irse, "UNITS", ((16, 3), (16, 4), (16, 14), (16, 3)))
    monkeypatch.setattr(e4e, "WIDTH", 16)
    alone = dataclasses.replace(small.profile.train, identity=0.0)
    small = dataclasses.replace(small, profile=dataclasses.replace(small.profile, train=alone))
    assert inverter.run(small, data=tmp_path / "data" / "content", steps=1, batch=2, unlock=1) == 0


def test_train_inverter(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "generator", small_run.generator)
    monkeypatch.setattr(portable, "RANK", 8)
    monkeypatch.setattr(portable, "Refiner", functools.partial(portable.Refiner, 16, 16))
    monkeypatch.setattr(inverter, "MAPPED", 100)
    monkeypatch.setattr(inverter, "RIDGES", (0.1, 1.0))
    data = pretrainings.write_pictures(tmp_path / "data", 2)
    assert inverter.run(ctx, data=data, images=12, steps=1, output=tmp_path / "inverter.safetensors") == 0


def test_train_parser(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "_label", label)
    for name in COLLECTIONS:
        (tmp_path / "data" / name).mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        (tmp_path / "data" / name / "0.jpg").write_bytes(images.encode(noise, ".jpg"))
    assert parser.run(ctx, data=tmp_path / "data", steps=1, copies=1, output=tmp_path / "parser.safetensors") == 0


def test_train_aladin(ctx: Context, tmp_path: Path) -> None:
    stats, works = collected()
    assert aladin.fit(ctx, tmp_path, stats, works, 2, None, {})[0] == 2


def test_every_stage_of_the_tiny_profile(tmp_path: Path) -> None:
    tiny = profile.load("tiny")
    ctx = Context(tiny, tmp_path / "cache", tmp_path / "content", tmp_path / "style", tmp_path / "run", device="cuda")
    for name in COLLECTIONS:
        (tmp_path / name).mkdir()
        for i in range(4):
            rng = np.random.default_rng([i, *name.encode()])
            image = rng.integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            (tmp_path / name / f"{name}{i}.png").write_bytes(images.encode(image))
        for step in (step for stage in chain.CACHED for step in chain.steps(stage, name, ctx)):
            assert run_stage(step, name, ctx).cached == 4
    assert shards.run(ctx) == 0 and train.run(ctx) == 0 and comparison.run(ctx, everything=True) == 0
