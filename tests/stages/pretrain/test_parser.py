"""Training the portrait parser: it resumes bit for bit, and starts from what it is told to."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.parsing.portrait import PortraitParser
from models.parsing.teacher import start_from
from models.regions import UNKNOWN
from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.pretrain import parser
from stages.pretrain.parser_headwear import FACE, HAIR
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
def test_a_share_of_the_teacher_is_mixed_in() -> None:
    teacher, net = start_from(weights.tensors(parser.TEACHER)), PortraitParser.load(weights.tensors("parser"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    parser.mix(net, 0.25)
    for name, tensor in net.state_dict().items():
        assert torch.allclose(tensor, 0.75 * before[name] + 0.25 * teacher.state_dict()[name], atol=1e-5)


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
    with pytest.raises(UserError, match=r"was started with labelled none, not 2 images"):
        parser.run(other, data=data, steps=2, copies=0, labelled=labelled(tmp_path), output=output)


def labelled(tmp_path: Path) -> Path:
    """A folder of one artwork and its map of 512 px: hair above, then face, the lowest row unknown."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(images.encode(np.full((300, 300, 3), 90, np.uint8), ".jpg"))
    regions = np.full((512, 512, 1), FACE, np.uint8)
    regions[:256], regions[-2:] = HAIR, UNKNOWN
    (folder / "0.png").write_bytes(images.encode(regions, ".png"))
    return folder


def test_art_labelled_by_hand_is_learnt_from(tmp_path: Path) -> None:
    folder = labelled(tmp_path)
    art = parser.read_art(folder)
    ((image, labels),) = art
    assert image.shape == labels.shape == (256, 256, 3) and (labels[-1] == 0).all()
    assert labels[127, 0].tolist() == [255, 0, 0] and labels[128, 0].tolist() == [0, 255, 0]
    photos, zeros = np.zeros((1, 256, 256, 3), np.uint8), np.full((1, 256, 256, 3), (0, 0, 255), np.uint8)
    faces = parser.Faces(photos, zeros, photos[:0], np.zeros(0, np.int64), art)
    drawn = [faces.sample(np.random.default_rng(seed))[1].argmax(2).min() for seed in range(40)]
    assert 4 <= drawn.count(HAIR) <= 22  # 0.3 of them; the photo has background alone
    (folder / "0.png").write_bytes(images.encode(np.full((64, 64, 1), 7, np.uint8), ".png"))
    with pytest.raises(UserError, match=r"0.png: is no region map of 0.jpg; expected a grey PNG of 0, 1 and 2"):
        parser.read_art(folder)
