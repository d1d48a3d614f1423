"""The FFHQ square: it follows the face wherever that goes, and cutting it out keeps every pixel in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.faces import alignment

FACE = np.array([[90, 110], [166, 112], [128, 150], [98, 190], [158, 190]], np.float32)


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points @ turn.T + shift).astype(np.float32)


@given(st.floats(-3, 3), st.floats(0.1, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_quad_moves_with_the_face(angle: float, scale: float, x: float, y: float) -> None:
    quad = alignment.quad_of(moved(FACE, angle, scale, (x, y)))
    expected = moved(alignment.quad_of(FACE), angle, scale, (x, y))
    assert np.abs(quad - expected).max() < 1e-3 * scale * 256 + 0.01


def test_quad_is_the_published_square() -> None:
    # an upright face with eyes 60 apart and the mouth 50 below them: half a side is max(2 * 60, 1.8 * 50) = 120
    face = np.array([[100, 100], [160, 100], [130, 120], [110, 150], [150, 150]], np.float32)
    assert np.allclose(alignment.quad_of(face), [[10, -15], [10, 225], [250, 225], [250, -15]])


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_impossible_points_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError):
        alignment.quad_of(points.astype(np.float32))


def test_cropping_the_whole_picture_changes_nothing() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    assert (alignment.crop(rgb, alignment.centre_quad(128, 128), 128) == rgb).all()


def test_crop_is_a_plain_cut_for_whole_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 160, 3), np.uint8)
    quad = np.array([[20, 10], [20, 74], [84, 74], [84, 10]], np.float64)
    assert (alignment.crop(rgb, quad, 64) == rgb[10:74, 20:84]).all()


def test_crop_mirrors_what_is_outside() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    quad = np.array([[-32, 0], [-32, 64], [32, 64], [32, 0]], np.float64)
    assert (alignment.crop(rgb, quad, 64)[:, :32] == rgb[:, 31::-1]).all()


def test_shrinking_averages() -> None:
    checks = ((np.indices((512, 512)).sum(0) % 2) * 255).astype(np.uint8)
    small = alignment.crop(np.repeat(checks[..., None], 3, 2), alignment.centre_quad(512, 512), 64)
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_coverage() -> None:
    assert alignment.coverage(alignment.centre_quad(100, 60), 100, 60) == 1.0
    half = np.array([[-50, 0], [-50, 100], [50, 100], [50, 0]], np.float64)
    assert alignment.coverage(half, 100, 100) == pytest.approx(0.5, abs=0.02)
