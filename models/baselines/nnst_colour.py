"""NNST's colours: the content's own, moved to the style's in OkLab and smoothed along the result's lightness."""

import torch
import torch.nn.functional as F
from torch import Tensor

TO_LMS = (
    (0.4121656120, 0.5362752080, 0.0514575653),
    (0.2118591070, 0.6807189584, 0.1074065790),
    (0.0883097947, 0.2818474174, 0.6302613616),
)
TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
FROM_LAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
FROM_LMS = (
    (4.0767245293, -3.3072168827, 0.2307590544),
    (-1.2681437731, 2.6093323231, -0.3411344290),
    (-0.0041119885, -0.7034763098, 1.7068625689),
)
GREY = 6e-5  # a style whose A and B vary less has no colours to give
ROUNDS, SHARPNESS = 5, 10.0


def _times(matrix: tuple[tuple[float, ...], ...], x: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", x.new_tensor(matrix), x)


def to_oklab(rgb: Tensor) -> Tensor:
    """OkLab [N, 3, H, W] of RGB in [0, 1] taken as linear, clamped first."""
    lms = _times(TO_LMS, rgb.clamp(0, 1))
    return _times(TO_LAB, lms.sign() * lms.abs() ** (1 / 3))


def from_oklab(lab: Tensor) -> Tensor:
    """RGB [N, 3, H, W] of OkLab, clamped to [0, 1]."""
    return _times(FROM_LMS, _times(FROM_LAB, lab) ** 3).clamp(0, 1)


def _covariance(flat: Tensor) -> Tensor:
    return flat @ flat.T / flat.shape[1]


def _root(covariance: Tensor, power: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance + 1e-4 * torch.eye(len(covariance)).to(covariance))
    return vectors * values.clamp(1e-8, 1e8) ** power @ vectors.T


def match_moments(x: Tensor, style: Tensor) -> Tensor:
    """x [1, C, H, W] with the mean and the covariance of style [1, C, h, w]: whitened, then coloured."""
    own, theirs = x[0].flatten(1), style[0].flatten(1)
    mean, own = theirs.mean(1, keepdim=True), own - own.mean(1, keepdim=True)
    recolour = _root(_covariance(theirs - mean), 0.5) @ _root(_covariance(own), -0.5)
    return (recolour @ own + mean).view_as(x)


def smooth(lab: Tensor) -> Tensor:
    """Lab with A and B averaged over 3 x 3 neighbours of like lightness, in five rounds; L stays."""
    light, colour = lab[:, :1], lab[:, 1:]
    weights = torch.exp(-SHARPNESS * (_neighbours(light) - light[:, :, None]).abs())
    weights = weights / weights.sum(2, keepdim=True)
    for _ in range(ROUNDS):
        colour = (_neighbours(colour) * weights).sum(2)
    return torch.cat([light, colour], 1)


def _neighbours(x: Tensor) -> Tensor:
    """The 3 x 3 neighbourhood of each position, edges repeated: [N, C, 9, H, W]."""
    n, c, h, w = x.shape
    return F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3).view(n, c, 9, h, w)


def match_colour(content: Tensor, style: Tensor, output: Tensor, *, moments_only: bool = False) -> Tensor:
    """The output [1, 3, H, W] with colours made from the content's and the style's; RGB in [0, 1].

    A style that is nearly grey, or `moments_only`, moves the output's own colours instead, without smoothing.
    """
    own, theirs, result = (to_oklab(x) for x in (content, style, output))
    low, high = (f(theirs.flatten(2), 2)[..., None, None] for f in (torch.amin, torch.amax))
    light = result[:, :1].clamp(low[:, :1], high[:, :1])
    ab = theirs[0, 1:].flatten(1)
    if moments_only or float(_covariance(ab - ab.mean(1, keepdim=True)).abs().max()) < GREY:
        lab = match_moments(torch.cat([light, result[:, 1:]], 1), theirs)
    else:
        lab = smooth(torch.cat([light, match_moments(own[:, 1:], theirs[:, 1:])], 1))
    return from_oklab(lab.clamp(low, high))
