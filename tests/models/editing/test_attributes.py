"""The networks that score faces: their published answers on a card, and what a mirror does to a face."""

import numpy as np
import pytest
import torch

from models.editing import attributes
from models.editing.attributes import AGES, MEAN, AttributeScorer
from models.editing.expression import ExpressionNet
from models.faces.detector import NoDetector, YuNet
from pipeline import images, weights
from stages.directions.scores import NETWORKS

pytestmark = pytest.mark.weights


def card(side: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    ramp = 255 * np.arange(side) / (side - 1)
    across, down = np.broadcast_to(ramp, (side, side)), np.broadcast_to(ramp[:, None], (side, side))
    return np.stack([across, down, np.full((side, side), 128.0)], 2) - MEAN


@pytest.fixture(scope="module")
def scorer() -> AttributeScorer:
    torch.set_num_threads(1)
    age, gender, expression, parser = NETWORKS
    return AttributeScorer(
        YuNet(weights.path("yunet")),
        weights.path(age),
        weights.path(gender),
        weights.tensors(expression),
        weights.tensors(parser),
    )


def test_known_answers(scorer: AttributeScorer) -> None:
    face = torch.from_numpy(card(112) / 255).float().permute(2, 0, 1)[None]
    expected = [-2.162, -3.886, -2.116, -4.854, -6.828, -4.219, -4.139]
    assert np.allclose(scorer._expression(face)[0], expected, atol=1e-3)
    scorer._age.setInput((card(64) / 256).transpose(2, 0, 1)[None].astype(np.float32))
    assert scorer._age.forward()[0] @ AGES == pytest.approx(21.58, abs=0.01)


def test_a_mirrored_face_looks_the_other_way(scorer: AttributeScorer) -> None:
    photo = images.decode(weights.path("astronaut").read_bytes())[20:276, 96:352].copy()
    own, mirrored = scorer(photo), scorer(np.ascontiguousarray(photo[:, ::-1]))
    assert own and mirrored and tuple(own) == attributes.ATTRIBUTES
    assert abs(own["pose"] + mirrored["pose"]) < 0.1
    assert abs(own["age"] - mirrored["age"]) < 6 and 20 < own["age"] < 50
    assert own["smile"] > 0 and own["gender"] < 0
    assert scorer(np.full((256, 256, 3), 128, np.uint8)) is None
    scorer.detector = NoDetector()
    assert scorer(np.full((64, 64, 3), 128, np.uint8)) is not None


def test_pose_is_where_the_nose_lies_between_the_eyes() -> None:
    points = np.array([[10, 20], [30, 30], [15, 22.5], [0, 0], [0, 0]], np.float32)
    assert attributes.pose(points) == pytest.approx(0.5)  # towards the image's left
    points[2] = 30, 30
    assert attributes.pose(points) == pytest.approx(-1)


def test_other_tensors_are_refused() -> None:
    tensors = weights.tensors("face-expression")
    del tensors["fc/bias"]
    with pytest.raises(ValueError, match=r"not face-api's expression network: 1 of .* missing \(fc.bias\)"):
        ExpressionNet.load(tensors)
