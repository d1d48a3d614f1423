"""On a GPU: the studio with all it can do, directions, and the trainings of other methods."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import hypernst
from stages.apply import refine
from stages.apply.studio import Studio
from stages.baselines import run as baselines
from stages.directions import train as directions
from stages.portraits.portrait import Portrait
from stages.train import memory
from stages.train.state import build
from tests.stages.baselines.test_training import CROPS, context
from tests.stages.directions import test_train
from tests.support import small_run

GPU = "cuda"
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.weights,
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Studio]]:
    """The portable profile's studio on a CPU and on the GPU, both in float32.

    Some CPUs refine in bfloat16, which moves a picture of two steps as far as 25 dB from that in float32.
    """
    run = tmp_path_factory.mktemp("studio") / "none"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "narrow_type", lambda device: torch.float32)
        yield [hypernst.load("portable", cache=None, run=run, device=device) for device in ("cpu", GPU)]


@pytest.fixture(scope="module")
def portraits(studios: list[Studio]) -> list[list[Portrait]]:
    """A content and a style, read by both."""
    return [
        [studio.read(blobs(0), no_face="keep"), studio.read(blobs(1), style=True, no_face="keep")] for studio in studios
    ]


def blobs(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)


def psnr(a: Any, b: Any) -> float:
    error = np.square(np.asarray(a, float) - np.asarray(b, float)).mean()
    return 10 * math.log10(255**2 / max(float(error), 1e-9))


def test_a_portrait_is_read_as_on_a_cpu(portraits: list[list[Portrait]]) -> None:
    for ours, theirs in zip(*portraits, strict=True):
        assert np.array_equal(ours.image, theirs.image) and (ours.region == theirs.region).mean() > 0.99
        assert float((ours.codes * theirs.codes).sum(1).min()) > 0.99 and ours.latent.shape == theirs.latent.shape


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"refine": 0}, 45),
        ({"refine": 0, "strength": {"hair": 1.0, "face": 0.5, "background": 0.0}}, 45),
        ({"refine": 0, "edits": {"age": 2, "smile": -1}}, 35),  # the region map is that of the edited picture
        ({"refine": 0, "size": 1024}, 45),
        ({"refine": 2}, 30),
    ],
    ids=["one pass", "by region", "edited", "1024 px", "refined"],
)
def test_the_studio_paints_as_on_a_cpu(
    options: dict[str, Any], least: float, studios: list[Studio], portraits: list[list[Portrait]]
) -> None:
    content, style = portraits[0]
    made = [studio.stylize(content, style, **options) for studio in studios]
    assert psnr(*made) > least and torch.cuda.memory_allocated() > 0


def test_the_studio_walks_as_on_a_cpu(studios: list[Studio], portraits: list[list[Portrait]]) -> None:
    content, style = portraits[0]
    walks = [studio.interpolate(content, [style], frames=3) for studio in studios]
    assert all(psnr(a, b) > 35 for a, b in zip(*walks, strict=True))


@pytest.mark.parametrize("method", CROPS)
def test_a_baseline_is_trained(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SIDE", 1)
    ctx = dataclasses.replace(context(tmp_path, "gpu", crop=CROPS[method], batch=2), device=GPU)
    small_run.write_shards(ctx, side=CROPS[method])
    assert baselines.run(ctx, method=method, steps=2) == 0


def test_directions_are_found(tmp_path: Path) -> None:
    ctx = dataclasses.replace(test_train.context(tmp_path), device=GPU)
    assert directions.run(ctx, images=25, output=tmp_path / "mine.safetensors") == 0


def test_the_micro_batch_is_measured(tmp_path: Path) -> None:
    with small_run.installed():
        ctx = dataclasses.replace(small_run.context(tmp_path, "auto", batch=4, micro_batch=0), device=GPU)
        net = small_run.generator(ctx)
        state = build(ctx, net)
        one, two = (memory._peak(ctx, state, net, n) for n in (1, 2))
        assert 0 < one <= two
        assert memory.choose_micro_batch(ctx, state, net).profile.train.micro_batch == 4
