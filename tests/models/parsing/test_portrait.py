"""The portrait parser: its layout is the teacher's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.faces.detector import YuNet
from models.parsing.portrait import (
    REGION_OF_CLASS,
    PortraitParser,
    by_region,
    confusion,
    distillation_loss,
    enlarge,
    mean_iou,
)
from models.parsing.teacher import start_from
from pipeline import images, profile, weights
from pipeline.context import Context
from stages.preprocess import align
from tests.support.bisenet_graph import CELLS, INPUT, BiSeNetV2, resize

CONTEXT = Context(profile=profile.load("portable"))


def added(classes: torch.Tensor) -> torch.Tensor:
    """Probabilities of 19 classes, added up by region."""
    empty = torch.zeros(len(classes), 3, *classes.shape[2:])
    return empty.index_add_(1, torch.tensor(REGION_OF_CLASS), classes)


def test_scores() -> None:
    truth = torch.tensor([0, 0, 1, 2, 255], dtype=torch.uint8)
    table = confusion(truth, torch.tensor([0, 1, 1, 2, 0], dtype=torch.uint8))
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert mean_iou(table) == pytest.approx((0.5 + 0.5 + 1) / 3)
    target = torch.eye(3)[torch.randint(0, 3, (2, 8, 8))].permute(0, 3, 1, 2)
    assert distillation_loss(target * 20, target) < 0.01 < 1 < distillation_loss(-target * 20, target)
    half = target * (torch.arange(8) < 4)  # the other half is not known
    logits = torch.where(half.sum(1, keepdim=True) > 0, target, -target) * 20
    assert distillation_loss(logits, half) < 0.01


def test_shapes_and_wrong_use() -> None:
    parser = PortraitParser(64).eval()
    assert parser.parse(torch.zeros(2, 3, 256, 256)).shape == (2, 256, 256)
    with pytest.raises(ValueError, match="256"):
        parser(torch.zeros(1, 3, 128, 128))
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    parser = PortraitParser()
    state = parser.state_dict()
    assert torch.equal(PortraitParser.load(state)(image), parser(image))
    with pytest.raises(ValueError, match="not a portrait parser: "):
        PortraitParser.load({name: t for name, t in state.items() if "head" not in name})


@pytest.mark.weights
def test_starts_as_the_teacher() -> None:
    tensors = weights.tensors("bisenetv2-celebamask")
    teacher, parser = BiSeNetV2(tensors), start_from(tensors, 96)
    image = images.to_tensor(images.decode(weights.path("astronaut").read_bytes(), 256))
    x = F.interpolate(image, (96, 96), mode="bilinear", align_corners=False)
    with torch.no_grad():
        cells = teacher.value(CELLS, {INPUT: x})
        assert torch.allclose(parser.classes(x), cells, atol=1e-4) and cells.std() > 1
        theirs = added(teacher.logits(x).softmax(1))
        ours = parser(image).softmax(1)
    assert (F.interpolate(ours, (96, 96), mode="area") - theirs).abs().mean() < 0.01
    with pytest.raises(ValueError, match="lack the kernel of 'detail_branch"):
        start_from({name: t for name, t in tensors.items() if "detail_branch/stage_2" not in name})


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.integers(0, 2**32))
def test_enlarges_as_the_teacher_does(height: int, width: int, times: int, seed: int) -> None:
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    theirs = resize({}, x, torch.tensor([height * times, width * times]))
    assert torch.allclose(enlarge(x, times), theirs, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 12).map(lambda i: 32 * i))
def test_cells_lie_where_the_teacher_put_them(size: int) -> None:
    """A ramp sampled at every eighth pixel of the working image comes back as that ramp at each pixel of the map."""
    spread = PortraitParser(size).spread
    assert torch.allclose(spread.sum(1), torch.ones(256)) and (spread >= 0).all()
    centres = (torch.arange(256) + 0.5) * size / 256 - 0.5
    ramp = spread @ torch.arange(0.0, size, 8)
    assert torch.allclose(ramp, centres.clamp(0, size - 8), atol=1e-3)


@given(st.integers(0, 2**32))
def test_regions_add_up_their_classes(seed: int) -> None:
    classes = 5 * torch.randn(2, 19, 4, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(by_region(classes).softmax(1), added(classes.softmax(1)), atol=1e-5)


@pytest.mark.weights
def test_teacher_and_student_see_the_astronaut() -> None:
    astronaut = images.decode(weights.path("astronaut").read_bytes())
    found = align.align_picture(astronaut, YuNet(weights.path("yunet")), CONTEXT.profile.align, keep=False)
    assert found is not None
    image = images.to_tensor(found.image)
    small = F.interpolate(image, (256, 256), mode="bilinear", antialias=True)
    teacher = start_from(weights.tensors("bisenetv2-celebamask"))
    student = PortraitParser.load(weights.tensors("parser"))
    table = confusion(teacher.parse(small), student.parse(small))
    assert mean_iou(table) > 0.75
