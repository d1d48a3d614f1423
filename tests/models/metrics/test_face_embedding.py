"""The measure of identity: the person decides, not the crop's surroundings, the light or the mirror."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.faces import alignment
from models.generators.mobilestylegan import MobileStyleGAN
from models.metrics.face_embedding import SIDE, TEMPLATE, FaceEmbedding
from pipeline import images, weights


@pytest.fixture(scope="module")
def person() -> FaceEmbedding:
    return FaceEmbedding(weights.path("face-embedding"))


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """Three people who do not exist, 256 px."""
    net = MobileStyleGAN.load(weights.tensors("mobilestylegan"), weights.tensors("head256"))
    z = torch.randn(3, 512, generator=torch.Generator().manual_seed(5))
    mean = net.mean_latent()
    with torch.no_grad():
        return list(images.to_arrays(net(mean + 0.8 * (net.map(z) - mean))))


@pytest.mark.weights
def test_a_person_is_known_again_and_strangers_are_told_apart(person: FaceEmbedding, faces: list[np.ndarray]) -> None:
    for i, face in enumerate(faces):
        assert abs(np.linalg.norm(person(face)) - 1) < 1e-5
        assert person.similarity(face, face[:, ::-1].copy()) > 0.75
        assert person.similarity(face, np.clip(face * 0.7 + 10, 0, 255).astype(np.uint8)) > 0.75
        assert person.similarity(face, faces[i - 1]) < 0.4


@pytest.mark.weights
def test_it_looks_at_the_face_alone_at_any_size(person: FaceEmbedding, faces: list[np.ndarray]) -> None:
    beside = faces[0].copy()
    beside[:24], beside[:, :24], beside[:, -24:] = 0, 0, 255
    assert np.array_equal(person(beside), person(faces[0]))
    assert person.similarity(cv2.resize(faces[0], (512, 512), interpolation=cv2.INTER_CUBIC), faces[0]) > 0.97


def test_the_average_face_lands_on_the_template() -> None:
    to_face, _ = cv2.estimateAffinePartial2D(alignment.POINTS * 256, TEMPLATE)
    landed = alignment.POINTS * 256 @ to_face[:, :2].T + to_face[:, 2]
    assert np.abs(landed - TEMPLATE).max() < 0.03 * SIDE


@pytest.mark.weights
def test_other_pictures_and_files_are_refused(person: FaceEmbedding, tmp_path: Path) -> None:
    for wrong in (np.zeros((256, 200, 3), np.uint8), np.zeros((256, 256), np.uint8), np.zeros((256, 256, 3))):
        with pytest.raises(ValueError, match=r"RGB \[S, S, 3\]"):
            person(wrong)
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match="cannot read this network"):
        FaceEmbedding(tmp_path / "net.onnx")
