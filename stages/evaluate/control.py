"""How well a stylisation can be controlled: one style per region, and strengths between the content and the style.

Colours are mean RGB over a region of the content, 0 to 255; `render` is `Stylist.render`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from models.regions import REGIONS
from pipeline.progress import Progress
from stages.portraits.portrait import Portrait, Target, in_region

Image = NDArray[np.uint8]
Render = Callable[[Portrait, Target], Image]
Score = Callable[[Image, Portrait, Portrait], Mapping[str, float]]  # of an image between content and style
HAIR, FACE = REGIONS.index("hair"), REGIONS.index("face")
ENOUGH = 500  # pixels that a region needs for its mean colour
STRENGTHS = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Triple:
    """A content and two styles, all three with hair and a face."""

    content: Portrait
    a: Portrait
    b: Portrait


def triples(contents: Sequence[Portrait], styles: Sequence[Portrait], count: int) -> list[Triple]:
    """At most `count` triples of portraits that have both regions; the two styles are half the list apart."""
    faces = [c for c in contents if _has_both(c)]
    usable = [s for s in styles if _has_both(s)]
    if not faces or len(usable) < 2:
        return []
    half = len(usable) // 2
    count = min(count, len(faces) * len(usable))
    return [
        Triple(faces[i % len(faces)], usable[i % len(usable)], usable[(i + half) % len(usable)]) for i in range(count)
    ]


def regions(render: Render, triples: Sequence[Triple]) -> tuple[dict[str, tuple[float, int]], list[list[Image]]]:
    """How independent the regions are: hair has codes of style A and the face codes of style B. Figures and rows.

    `control_hair`, `control_face`: the share of triples in which the region's colour is nearer to that under its own
    style everywhere than to that under the other style everywhere. `control_swap`: the two styles change places; the
    share of regions whose colour moves in the direction from the one artwork's colour to the other's.
    `control_extent`: this movement as a share of the movement when all regions change style; 1 if the other regions
    have no influence. The background and the whole-image code stay the content's own.
    """
    shares: dict[str, list[float]] = {f"control_{name}": [] for name in ("hair", "face", "swap", "extent")}
    rows = []
    progress = Progress("region control", len(triples), "triple")
    for t in triples:
        plain, only_a, only_b, ab, ba = (
            render(t.content, target)
            for target in (
                t.content.target,
                t.a.target,
                t.b.target,
                _hair_and_face(t.content, t.a, t.b),
                _hair_and_face(t.content, t.b, t.a),
            )
        )
        for region, name, own, other in ((HAIR, "hair", only_a, only_b), (FACE, "face", only_b, only_a)):
            now, alone, rival = (colour(p, t.content.region, region) for p in (ab, own, other))
            shares[f"control_{name}"].append(_distance(now, alone) < _distance(now, rival))
            first, second = (t.a, t.b) if region == HAIR else (t.b, t.a)
            expected = colour(first.image, first.region, region) - colour(second.image, second.region, region)
            moved = now - colour(ba, t.content.region, region)
            shares["control_swap"].append(float(moved @ expected > 0))
            shares["control_extent"].append(float(moved @ (alone - rival)) / max(_distance(alone, rival) ** 2, 1.0))
        rows.append([t.content.image, t.a.image, t.b.image, plain, only_a, only_b, ab, ba])
        progress.add(1)
    progress.close()
    return {
        name: (float(np.median(v)) if name == "control_extent" else mean(v), len(v)) for name, v in shares.items() if v
    }, rows


def walk(
    render: Render,
    mix: Callable[[Portrait, Portrait, float], Target],
    pairs: Sequence[tuple[Portrait, Portrait]],
    score: Score,
) -> tuple[dict[str, tuple[float, int]], list[list[Image]]]:
    """Spearman's correlation of strength with each score, averaged over `pairs`, and a row of images per pair.

    `mix` gives the target at a strength. A score that falls with the strength has a correlation near -1.
    """
    correlations: dict[str, list[float]] = {}
    rows = []
    progress = Progress("interpolation", len(pairs), "pair")
    for content, style in pairs:
        row = [render(content, mix(content, style, float(strength))) for strength in STRENGTHS]
        scores = [score(image, content, style) for image in row]
        for name in scores[0]:
            correlations.setdefault(name, []).append(spearman(STRENGTHS, [s[name] for s in scores]))
        rows.append([content.image, *row, style.image])
        progress.add(1)
    progress.close()
    return {name: (mean(values), len(values)) for name, values in correlations.items()}, rows


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Rank correlation of two series; equal values share their mean rank. It is 0 where a series is constant."""
    x, y = (_ranks(np.asarray(v, np.float64)) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length else 0.0


def colour(image: Image, region: np.ndarray, index: int) -> np.ndarray:
    """Mean RGB of a region, [3]."""
    return image[region == index].mean(0)


def _hair_and_face(content: Portrait, hair: Portrait, face: Portrait) -> Target:
    return in_region(in_region(content, HAIR, hair), FACE, face).target


def _has_both(portrait: Portrait) -> bool:
    return all(portrait.valid[r] and np.count_nonzero(portrait.region == r) >= ENOUGH for r in (HAIR, FACE))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]
