"""Semantic directions of a latent space (Shen et al. 2020, InterFaceGAN): unit normals of linear boundaries.

A boundary separates the latents that score highest on an attribute from those that score lowest; a latent moves along
its normal, w + a d. The machine is the soft-margin one (published with C = 1), solved to the optimum by an
interior-point method whose systems have the size of the latent, however many latents there are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 100
GAP = 1e-11  # mean complementarity at which the solution is taken
SUPPORT = 1e-6  # a multiplier above this belongs to a support vector


@dataclass(frozen=True)
class Boundary:
    """A direction [1, D] of length 1 with its offset (w @ d + offset > 0 is the high side), and how it fits.

    That is its accuracy on the training latents, and its number of support vectors.
    """

    direction: Floats
    offset: float
    accuracy: float
    supports: int


def fit(
    latents: NDArray[np.floating], scores: NDArray[np.floating], share: float = 0.02, cost: float = 1.0
) -> Boundary:
    """Separate the `share` (at most a half) of latents [N, D] with the highest scores [N] from that with the lowest.

    `cost` is the machine's C: with fewer latents than about D on a side 1 fits them too well.
    Raises: ValueError for other shapes, values that are not finite, or an empty side.
    """
    x, s = np.asarray(latents, np.float64), np.asarray(scores, np.float64).reshape(-1)
    if x.ndim != 2 or len(x) != len(s) or not np.isfinite(x).all() or not np.isfinite(s).all():
        shapes = f"{list(x.shape)} and {list(s.shape)}"
        raise ValueError(f"a boundary needs finite latents [N, D] and scores [N], got {shapes}")
    picked = x[extremes(s, share)]
    labels = np.repeat([1.0, -1.0], len(picked) // 2)
    normal, offset, multipliers = _machine(picked, labels, cost)
    length = np.linalg.norm(normal)
    if length < 1e-12:
        raise ValueError("a boundary needs latents that differ between the two sides")
    right = float(((picked @ normal + offset > 0) == (labels > 0)).mean())
    supports = int((multipliers > SUPPORT * cost).sum())
    return Boundary(normal[None] / length, offset / float(length), right, supports)


def extremes(scores: NDArray[np.floating], share: float) -> NDArray[np.intp]:
    """Which of the scores [N] are the `share` (at most a half) of highest ones, then which are that of the lowest.

    Raises: ValueError when that is none.
    """
    count = min(int(len(scores) * share), len(scores) // 2)
    if count < 1:
        raise ValueError(f"a boundary needs latents on both sides, got {share:g} of {len(scores)}")
    order = np.argsort(scores, kind="stable")
    return np.concatenate([order[-count:], order[:count]])


def project(direction: NDArray[np.floating], *others: NDArray[np.floating]) -> Floats:
    """The direction [1, D] without its components along the others [1, D], of length 1.

    Raises: ValueError when nothing is left of it.
    """
    rest = np.asarray(direction, np.float64)
    if others:
        basis, _ = np.linalg.qr(np.concatenate([np.asarray(o, np.float64) for o in others]).T)
        rest = rest - rest @ basis @ basis.T
    length = np.linalg.norm(rest)
    if length < 1e-9:
        raise ValueError("the direction lies in the span of the others; there is none independent of them")
    return rest / length


def place(latents: NDArray[np.floating], direction: NDArray[np.floating], distances: NDArray[np.floating]) -> Floats:
    """Move a latent [1, D] to signed distances [K] from the boundary: [K, D]; or W+ [1, L, D] by them: [K, L, D]."""
    w, d, a = (np.asarray(v, np.float64) for v in (latents, direction, distances))
    if w.ndim == 2:
        return w + (a - w @ d[0])[:, None] * d
    return w + a[:, None, None] * d


def _machine(x: Floats, y: Floats, cost: float = 1.0) -> tuple[Floats, float, Floats]:
    """Normal [D], offset and multipliers [N] of the soft-margin machine for x [N, D], y [N] of 1 and -1.

    Mehrotra's predictor and corrector. The plane is kept beside the multipliers, though they imply it: their rounding
    errors are corrected then, instead of adding up. Its last entry is the offset, which has no norm to be kept small.
    """
    z = np.concatenate([x, np.ones((len(y), 1))], 1) * y[:, None]
    norm = np.append(np.ones(x.shape[1]), 0.0)
    plane, a = np.zeros(z.shape[1]), np.full(len(y), cost / 2)
    low, high = np.ones(len(y)), np.ones(len(y))
    for _ in range(STEPS):
        slack = cost - a
        gap = (a @ low + slack @ high) / (2 * len(y))
        margin, pull = z @ plane - 1 - low + high, norm * plane - z.T @ a
        if gap < GAP:
            break
        theta = low / a + high / slack
        scaled = z / theta[:, None]
        system = np.diag(norm) + z.T @ scaled
        reach, da, dl, dh = 0.0, np.zeros_like(a), np.zeros_like(a), np.zeros_like(a)
        for corrected in (False, True):
            after = ((a + reach * da) @ (low + reach * dl) + (slack - reach * da) @ (high + reach * dh)) / (2 * len(y))
            centre = gap * (after / gap) ** 3 if corrected else 0.0
            first, second = centre - a * low - da * dl, centre - slack * high + da * dh
            right = first / a - second / slack - margin
            dplane = np.linalg.solve(system, scaled.T @ right - pull)
            da = (right - z @ dplane) / theta
            dl, dh = (first - low * da) / a, (second + high * da) / slack
            reach = _reach((a, da), (slack, -da), (low, dl), (high, dh))
        reach *= 0.995
        a, low, high, plane = a + reach * da, low + reach * dl, high + reach * dh, plane + reach * dplane
    return plane[:-1], float(plane[-1]), a


def _reach(*pairs: tuple[Floats, Floats]) -> float:
    """How far, up to 1, all values stay positive along their steps."""
    return min([1.0, *(float((-v[d < 0] / d[d < 0]).min()) for v, d in pairs if (d < 0).any())])
