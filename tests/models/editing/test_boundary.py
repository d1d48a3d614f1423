"""Semantic boundaries against InterFaceGAN's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.editing import boundary
from tests.support.goldens import Case


def test_equals_the_published_training() -> None:
    case = Case("interfacegan_boundary")
    latents, direction, noise = (case.input(name).astype(np.float64) for name in ("latents", "direction", "noise"))
    scores = latents @ (direction / np.linalg.norm(direction)) + noise
    case.check("scores", scores[:, None])
    found = boundary.fit(latents, scores, 0.25)
    case.check("boundary", found.direction)
    case.check("boundary_tight", found.direction)
    condition = case.input("cond") / np.linalg.norm(case.input("cond"))
    case.check("projected", boundary.project(found.direction, condition))
    case.check("interpolated", boundary.place(latents[:1], found.direction, np.linspace(-3, 3, 7)))
    case.check("train_accuracy", np.array([found.accuracy]))
    case.check("n_support", np.array([found.supports]))
    tight = case.npz["boundary_tight"]
    case.check("cosine", np.array([(found.direction @ tight.T / np.linalg.norm(tight)).item()]))


def test_equals_the_published_projection_and_walks() -> None:
    case = Case("interfacegan_project")
    unit = lambda x: np.asarray(x, np.float64) / np.linalg.norm(x)  # noqa: E731
    p, c1, other, c3 = (unit(case.input(name)) for name in ("primal", "cond_1", "cond_2", "cond_3"))
    c2 = unit(0.6 * c1 + 0.8 * other)
    b = unit(p + 0.5 * c1 + 0.3 * c2)
    for count, name in enumerate(("none", "one", "two", "three")):
        case.check(name, boundary.project(b, *(c1, c2, c3)[:count]))
    case.check("edited_w", boundary.place(case.input("w"), b, np.linspace(-2, 4, 5)))
    case.check("edited_w_plus", boundary.place(case.input("w_plus"), b, np.linspace(-5, 5, 5)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 40), st.floats(0, 4))
def test_the_optimum_satisfies_the_conditions_of_one(seed: int, count: int, size: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2 * count, size)), np.repeat([1.0, -1.0], count)
    x[:count, 0] += apart
    normal, offset, a = boundary._machine(x, y)
    margins = y * (x @ normal + offset)
    assert abs(a @ y) < 1e-6 and a.min() > -1e-9 and a.max() < 1 + 1e-9
    assert (margins[a < 1e-5] > 1 - 1e-4).all() and (margins[a > 1 - 1e-5] < 1 + 1e-4).all()
    assert np.abs(margins[(a > 1e-5) & (a < 1 - 1e-5)] - 1).max(initial=0) < 1e-4


def test_projection_leaves_nothing_of_the_others() -> None:
    rng = np.random.default_rng(0)
    d, one, two = (v[None] / np.linalg.norm(v) for v in rng.normal(size=(3, 16)))
    left = boundary.project(d, one, two)
    assert abs(left @ one.T) < 1e-12 and abs(left @ two.T) < 1e-12 and np.linalg.norm(left) == pytest.approx(1)
    with pytest.raises(ValueError, match="lies in the span"):
        boundary.project(one, one, two)


def test_what_cannot_be_separated_is_told() -> None:
    with pytest.raises(ValueError, match=r"finite latents \[N, D\]"):
        boundary.fit(np.full((4, 2), np.nan), np.arange(4.0))
    with pytest.raises(ValueError, match="both sides"):
        boundary.fit(np.zeros((4, 2)), np.arange(4.0), 0.02)
    with pytest.raises(ValueError, match="differ"):
        boundary.fit(np.zeros((4, 2)), np.arange(4.0), 0.5)


def test_w_plus_moves_by_the_distance() -> None:
    w, d = np.ones((1, 3, 4)), np.eye(4)[:1]
    moved = boundary.place(w, d, np.array([-2.0, 1.0]))
    assert moved.shape == (2, 3, 4) and (moved[..., 1:] == 1).all()
    assert np.array_equal(moved[..., 0], [[-1] * 3, [2] * 3])
