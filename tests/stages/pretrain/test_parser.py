"""Training the portrait parser: it resumes bit for bit, and starts from what it is told to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.pretrain import parser
from tests.support import pretrainings
from tests.support.pretrainings import kill_at

STEPS = 3


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two faces with labels of their own (a teacher needs a face), and one style."""
    monkeypatch.setattr(parser, "BATCH", 2)
    monkeypatch.setattr(parser, "SAVE_EVERY", 2)
    monkeypatch.setattr(parser, "_label", label)
    for folder, count in (("content", 2), ("style", 1)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng([count, i]).integers(0, 256, (256, 256, 3), np.uint8)
            (tmp_path / "data" / folder / f"{i}.jpg").write_bytes(images.encode(noise, ".jpg"))
    return tmp_path / "data"


def label(ctx: Context, faces: parser.Faces, files: images.Folder) -> None:
    """Hair above, face in the middle, background below."""
    for i, photo in enumerate(files):
        faces.photos[i] = photo
        faces.labels[i] = np.eye(3, dtype=np.uint8)[np.arange(256) * 3 // 256][:, None] * 255


def context(tmp_path: Path, run: str) -> Context:
    return Context(profile=profile.load("portable"), run=tmp_path / run)


@pytest.mark.weights
@pytest.mark.parametrize("shipped", [True, False])
def test_killed_it_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: bool
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    options = {"data": data, "steps": STEPS, "copies": 1, "shipped": shipped}
    parser.run(context(tmp_path, "whole"), output=whole, **options)
    with monkeypatch.context() as patch:
        kill_at(patch, parser, 3, lambda: parser.run(context(tmp_path, "parts"), output=parts, **options))
    assert not parts.exists()
    parser.run(context(tmp_path, "parts"), output=parts, **options)
    pretrainings.assert_same(pretrainings.saved(parts), pretrainings.saved(whole))
    assert [row["step"] for row in pretrainings.log(tmp_path / "parts" / "train-parser")] == [1, 2, 3]
    former, (tensors, meta) = weights.tensors("parser"), checkpoint.load(whole)
    heads = [n for n in former if "head" in n]
    near = [np.allclose(tensors[n].float(), former[n].float(), atol=2e-3) for n in heads]
    assert heads and all(near) is shipped and meta["steps"] == STEPS
    assert str(tensors["head.2.convolution.weight"].dtype) == "torch.float16"


@pytest.mark.weights
def test_other_settings_do_not_resume(data: Path, tmp_path: Path) -> None:
    ctx, output = context(tmp_path, "run"), tmp_path / "parser.safetensors"
    parser.run(ctx, data=data, steps=1, copies=0, output=output)
    with pytest.raises(UserError, match="was started with steps 1, not 2"):
        parser.run(ctx, data=data, steps=2, copies=0, output=output)
    (data / "content" / "1.jpg").write_bytes((data / "style" / "0.jpg").read_bytes())
    with pytest.raises(UserError, match=r"data/made.json: was started with content 2 images \w{12}, not 2 images"):
        parser.run(ctx, data=data, steps=1, copies=0, output=output)
    other = dataclasses.replace(ctx, run=tmp_path / "other")
    assert parser.run(other, data=data, steps=2, minutes=0, copies=0, output=output) == 0
