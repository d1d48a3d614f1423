"""The portrait parser: its layout is the teacher's, its training pairs keep labels and picture together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bisenetv2 import BiSeNetV2
from models.detector import YuNet
from models.parser import PortraitParser, confusion, distillation_loss, mean_iou
from pipeline import checkpoint, pictures, profile, weights
from pipeline.context import Context
from stages import align, parser_data, train_parser

CONTEXT = Context(profile=profile.load("portable"))


def blob() -> tuple[np.ndarray, np.ndarray]:
    """A face-like picture and its label probabilities: hair above, face in the middle, background around."""
    labels = np.zeros((256, 256, 3), np.uint8)
    labels[..., 2] = 255
    labels[30:200, 60:200] = (255, 0, 0)
    labels[80:220, 80:180] = (0, 255, 0)
    colours = np.array([[60, 40, 20], [220, 180, 150], [90, 140, 200]], np.uint8)
    return colours[labels.argmax(2)], labels


def test_scores() -> None:
    truth = torch.tensor([0, 0, 1, 2, 255], dtype=torch.uint8)
    table = confusion(truth, torch.tensor([0, 1, 1, 2, 0], dtype=torch.uint8))
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert mean_iou(table) == pytest.approx((0.5 + 0.5 + 1) / 3)
    target = torch.eye(3)[torch.randint(0, 3, (2, 8, 8))].permute(0, 3, 1, 2)
    assert distillation_loss(target * 20, target) < 0.01 < 1 < distillation_loss(-target * 20, target)


def test_shapes_and_wrong_use() -> None:
    parser = PortraitParser().eval()
    assert parser.parse(torch.zeros(2, 3, 256, 256)).shape == (2, 256, 256)
    with pytest.raises(ValueError, match="256"):
        parser(torch.zeros(1, 3, 128, 128))
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    assert torch.equal(parser.parse(image.flip(-1)), parser.parse(image).flip(-1))
    state = parser.state_dict()
    assert torch.equal(PortraitParser.load(state)(torch.ones(1, 3, 256, 256)), parser(torch.ones(1, 3, 256, 256)))
    with pytest.raises(ValueError, match="do not fit"):
        PortraitParser.load({name: t for name, t in state.items() if "head" not in name})
    with pytest.raises(ValueError, match="convert"):
        BiSeNetV2({})


@pytest.mark.weights
def test_encoder_starts_as_the_teachers() -> None:
    tensors = weights.tensors("bisenetv2-celebamask")
    teacher, parser = BiSeNetV2(tensors), PortraitParser()
    parser.start_from(tensors)
    image = pictures.to_tensor(pictures.decode(weights.path("astronaut").read_bytes(), 256))
    place = "BiseNetV2/semantic_branch/stage_5/ce_block_3_repeat_1/context_embedding_block/final_conv_block/Conv2D"
    with torch.no_grad():
        assert torch.allclose(parser.encoder(image)[-1], teacher._value(place, {"input_tensor": image}), atol=1e-5)


@pytest.mark.weights
def test_teacher_and_student_see_the_astronaut() -> None:
    astronaut = pictures.decode(weights.path("astronaut").read_bytes())
    found = align.align_picture(astronaut, YuNet(weights.path("yunet")), CONTEXT.profile.align, keep=False)
    assert found is not None
    image = pictures.to_tensor(found.image)
    teacher = BiSeNetV2(weights.tensors("bisenetv2-celebamask")).regions(image)
    assert torch.allclose(teacher.sum(1), torch.ones(1, 256, 256), atol=1e-4)
    student = PortraitParser.load(weights.tensors("parser"))
    small = torch.nn.functional.interpolate(image, (256, 256), mode="bilinear", antialias=True)
    table = confusion(teacher.argmax(1), student.parse(small))
    assert mean_iou(table) > 0.75


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_redrawn_pairs_stay_together(seed: int) -> None:
    image, labels = blob()
    rng = np.random.default_rng(seed)
    for redraw in (parser_data.draw, parser_data.draw_plain):
        drawn, target = redraw(image, labels, image, rng)
        assert drawn.shape == (256, 256, 3) and drawn.dtype == np.uint8
        assert target.shape == (128, 128, 3) and np.abs(target.astype(int).sum(2) - 255).max() <= 3
    bent, moved = parser_data.bend(image, labels, np.random.default_rng(seed))
    sure = moved.max(2) == 255
    colours = np.array([[60, 40, 20], [220, 180, 150], [90, 140, 200]])
    assert np.abs(bent[sure].astype(int) - colours[moved.argmax(2)[sure]]).max() <= 2


@pytest.mark.weights
@pytest.mark.parametrize("shipped", [True, False])
def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: bool) -> None:
    monkeypatch.setattr(train_parser, "BATCH", 2)
    image, labels = blob()
    faces = train_parser.Faces(image[None], labels[None], image[None], np.zeros(1, np.int64))
    ctx = dataclasses.replace(CONTEXT, run=tmp_path)
    output = tmp_path / "parser.safetensors"
    former = weights.tensors("parser")
    for expected in (1, 2):
        train_parser.fit(ctx, faces, 1e-6, output, {"what": "a test"}, shipped=shipped)
        tensors, meta = checkpoint.load(output)
        near = [torch.allclose(tensors[n].float(), former[n].float(), atol=0.1) for n in former if "lateral" in n]
        assert all(near) is shipped
        assert meta["step"] == expected and tensors["head.weight"].dtype == torch.float16
