"""What the tests of the smaller trainings share: a narrow StyleGAN2 on disk, images, and a run that is killed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from models.generators import stylegan2
from models.generators.stylegan2 import StyleGAN2
from pipeline import images, profile
from pipeline.context import Context
from pipeline.training import checkpoint, loop

SIDE = 64


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is saved."""


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` images of coloured blobs to `folder`; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        small = np.random.default_rng([seed, i]).integers(0, 256, (6, 6, 3), np.uint8)
        image = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        (folder / f"{i}.png").write_bytes(images.encode(image))
    return folder


def stylegan2_context(base: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The paper's profile with a StyleGAN2 of 64 px, 16 channels up to 32 px and few mapping layers."""
    monkeypatch.setattr(stylegan2, "CONSTANT", 16)
    place = base / "stylegan2.safetensors"
    if not place.exists():
        torch.manual_seed(0)
        net = StyleGAN2(SIDE, 0.25, 2)
        state = {
            n: t if n.endswith("kernel") else torch.randn(t.shape) * (1 if t.ndim > 1 else 0.1)
            for n, t in net.state_dict().items()
        }
        checkpoint.save(place, state | {"latent_avg": net.mean_latent(100)}, {})
    paper = profile.load("paper256")
    small = dataclasses.replace(
        paper,
        generator=dataclasses.replace(paper.generator, size=SIDE, weights=str(place)),
        inverter=dataclasses.replace(paper.inverter, weights="e4e-ffhq-256"),
        train=dataclasses.replace(paper.train, image_discriminator_base=256, identity=0.0, identity_weights=""),
    )
    return Context(small, cache=base / "cache", run=base / "runs" / run)


def other_kind() -> Context:
    """A profile whose generator has an unknown kind."""
    portable = profile.load("portable")
    return Context(dataclasses.replace(portable, generator=dataclasses.replace(portable.generator, kind="other")))


def saved(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint."""
    return checkpoint.load(path)[0]


def log(folder: Path) -> list[dict[str, Any]]:
    """The log of a run, without the times."""
    return [{name: value for name, value in row.items() if name != "time"} for row in loop.rows(folder)]


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Assert that the tensors have the same names and are bit-identical."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def kill_at(monkeypatch: pytest.MonkeyPatch, stage: ModuleType, call: int, run: Callable[[], Any]) -> None:
    """Call `run` and die in the `call`-th call of the stage's train_step, after its work but before saving."""
    step, calls = stage.train_step, []

    def dying(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(stage, "train_step", dying)
    with pytest.raises(Killed):
        run()
    monkeypatch.setattr(stage, "train_step", step)
