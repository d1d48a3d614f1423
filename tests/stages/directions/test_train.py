"""Directions from scored faces of an untrained generator: found, kept, loaded, and refused by other generators."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.editing.attributes import ATTRIBUTES
from pipeline import ours, profile, weights
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.directions import scores, train
from stages.loaders import directions as loader
from stages.loaders import generator as generators
from stages.tools import clean, verify


def context(tmp_path: Path, *directions: str, **options: int) -> Context:
    tiny = profile.load("tiny")
    editing = dataclasses.replace(tiny.editing, directions=directions)
    made = dataclasses.replace(tiny, editing=editing, **options)
    return Context(made, cache=tmp_path / "cache", run=tmp_path / "run", content=tmp_path, style=tmp_path)


def test_the_direction_that_made_the_scores_is_found() -> None:
    rng = np.random.default_rng(0)
    latents, direction = rng.normal(size=(400, 16)), rng.normal(size=16)
    found, told = train.fitted(latents, latents @ direction + 0.5 * rng.normal(size=400))
    assert found.direction[0] @ direction / np.linalg.norm(direction) > 0.98
    assert told["held-out accuracy"] == 1 and told["held-out r"] > 0.95
    with pytest.raises(ValueError, match="same score"):
        train.fitted(latents, np.ones(400))


def test_each_becomes_independent_of_all_others() -> None:
    rng = np.random.default_rng(1)
    raw = {name: v[None] / np.linalg.norm(v) for name, v in zip("abc", rng.normal(size=(3, 8)), strict=True)}
    made = train.independent(raw)
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        assert abs((made[name] @ raw[other].T).item()) < 1e-12 and (made[name] @ raw[name].T).item() > 0.3


@pytest.mark.weights
def test_from_faces_to_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    ctx, place = context(tmp_path), tmp_path / "mine.safetensors"
    assert train.run(ctx, images=25, output=place) == 0
    assert "pose is left out: all faces have the same score" in capsys.readouterr().err
    with Cache(ctx.file(ours.DIRECTIONS, scores.OUTPUT)) as cache:
        assert len(cache) == 25 and set(cache.columns) == {"w", *ATTRIBUTES}
    tensors, told = checkpoint.load(place)
    assert "pose" not in tensors  # all faces have the average points
    assert set(tensors) == set(told["boundaries"]) and told["faces"] == 25

    mine = context(tmp_path, weights.as_name(place))
    net = generators.generator(mine)
    steps = loader.directions(mine, net)
    w = loader.mapped(net, 0)
    for name, step in steps.items():
        unit = step / step.norm()
        assert torch.allclose(unit[0], tensors[name], atol=1e-5)
        assert float((w @ unit.T).std()) == pytest.approx(float(step.norm()), rel=1e-4)
    assert loader.sha256(mine) == weights.sha256(weights.as_name(place)) and loader.sha256(ctx) == ""
    other = context(tmp_path, weights.as_name(place), seed=1)
    with pytest.raises(UserError, match=r"are of the W of another generator, not of an untrained one in profile tiny"):
        loader.directions(other, generators.generator(other))

    assert verify.run(ctx) == 0
    clean.run(ctx.cache)
    assert not list(ctx.cache.iterdir())
