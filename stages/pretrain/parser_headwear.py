"""Headwear and heads without hair for the parser's training images, painted over faces of the usual alignment.

Hats, hoods and veils are background, as the teacher's classes of hat and cloth are; bald skin and beards are face.
Images and labels are those of `parser_augment`. Places are in face widths: u to the right of the middle of the face,
v upwards from the chin, so that brows lie at v = 0.85, the hairline near 1.2 and the crown near 1.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Mask = NDArray[np.float32]  # [H, W] in [0, 1]
Random = np.random.Generator
Point = tuple[float, float]

HAIR, FACE, BACKGROUND = range(3)
SMALLEST = 0.02  # share of the image that a face must have


@dataclass(frozen=True)
class Head:
    """A face's middle, chin and width in pixels, and the top of its hair in v; `shape` is the image's."""

    middle: float
    chin: float
    width: float
    crown: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, labels: Labels) -> "Head | None":
        """The head in `labels`; None when there is hardly a face."""
        y, x = np.nonzero(labels[..., FACE] > 127)
        if len(y) < SMALLEST * labels[..., FACE].size:
            return None
        left, right = np.percentile(x, (1, 99))
        chin, width, middle = float(np.percentile(y, 99)), float(right - left), float(right + left) / 2
        above = labels[:, int(left) : int(right), BACKGROUND].min(1) < 128
        return cls(middle, chin, width, (chin - int(above.argmax())) / width, labels.shape[:2])

    def pixels(self, places: Sequence[Point]) -> NDArray[np.float32]:
        """Places (u, v) as pixels [N, 2]."""
        u, v = np.asarray(places, np.float32).T
        return np.stack([self.middle + u * self.width, self.chin - v * self.width], 1)

    def area(self, places: Sequence[Point], soft: float = 1.0) -> Mask:
        """The area within a smooth closed curve along `places`; its edge is `soft` pixels wide."""
        curve = self.pixels(places)
        for _ in range(3):  # Chaikin's corner cutting
            after = np.roll(curve, -1, 0)
            curve = np.stack([0.75 * curve + 0.25 * after, 0.25 * curve + 0.75 * after], 1).reshape(-1, 2)
        mask = np.zeros(self.shape, np.float32)
        cv2.fillPoly(mask, [np.round(curve * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)

    def oval(self, middle: Point, half: Point, turn: float = 0.0, soft: float = 1.0) -> Mask:
        """An ellipse with half axes `half`, turned by `turn` radians."""
        along = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x, y = half[0] * np.cos(along), half[1] * np.sin(along)
        u, v = middle[0] + x * np.cos(turn) - y * np.sin(turn), middle[1] + x * np.sin(turn) + y * np.cos(turn)
        return self.area(list(zip(u, v, strict=True)), soft)

    def above(self, v: float) -> Mask:
        """What lies above v."""
        rows = np.arange(self.shape[0], dtype=np.float32)[:, None]
        return np.broadcast_to(np.clip(self.chin - v * self.width - rows, 0, 1), self.shape)


def matte(labels: Labels, region: int) -> Mask:
    """Where a region is: 1 from a probability of 0.75 on, 0 below 0.25, as a teacher is hardly ever surer."""
    return np.asarray(np.clip(labels[..., region] / np.float32(127.5) - 0.5, 0, 1), np.float32)


def enlarged_corner(other: Image, side: int, shape: tuple[int, int], rng: Random) -> NDArray[np.float32]:
    """An upper corner of an image, of `side` pixels, enlarged to [H, W, 3]."""
    corner = other[:side, :side] if rng.random() < 0.5 else other[:side, -side:]
    return np.asarray(cv2.resize(corner, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def cloth(shape: tuple[int, int], other: Image, rng: Random) -> NDArray[np.float32]:
    """Folded cloth [H, W, 3], in one colour or patterned by a corner of `other`."""
    height, width = shape
    if rng.random() < 0.3:
        base = enlarged_corner(other, int(rng.integers(height // 6, height // 2)), shape, rng)
    else:
        level = rng.uniform(8, 60) if rng.random() < 0.4 else rng.uniform(40, 245)
        base = np.full((height, width, 3), level * rng.uniform(0.55, 1.15, 3), np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    wave = cv2.resize(rng.normal(0, 1, (4, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    turn, count = rng.uniform(0, np.pi), rng.uniform(0.5, 5)
    folds = np.sin(2 * np.pi * count * (np.cos(turn) * x + np.sin(turn) * y) + rng.uniform(1, 5) * wave)
    grain = rng.normal(0, 1, shape).astype(np.float32)
    light = 1 + rng.uniform(0.0, 0.3) * folds + rng.uniform(0, 0.25) * wave + rng.uniform(0, 0.08) * grain
    return np.asarray(base * light[..., None] + rng.uniform(0, 12) * folds[..., None], np.float32)


def cover(rgb: Image, labels: Labels, mask: Mask, texture: NDArray[np.float32]) -> tuple[Image, Labels]:
    """Lay `texture` over the image where `mask` is, darker towards its edge; there the label is background."""
    rounded = cv2.GaussianBlur(mask, (0, 0), 7)[..., None]
    return blend(rgb, labels, mask, texture * (0.55 + 0.45 * rounded), BACKGROUND)


def blend(
    rgb: Image, labels: Labels, mask: Mask, paint: NDArray[np.float32], region: int | None
) -> tuple[Image, Labels]:
    """Paint where `mask` is, and label it `region`, or leave the labels when that is None."""
    weight = mask[..., None]
    out = np.clip(rgb * (1 - weight) + paint * weight, 0, 255).astype(np.uint8)
    if region is None:
        return out, labels
    return out, np.round(labels * (1 - weight) + 255 * np.eye(3, dtype=np.float32)[region] * weight).astype(np.uint8)


def spread(rgb: Image, mask: Mask, sigma: float) -> NDArray[np.float32]:
    """The colours under `mask`, carried on over the whole image."""
    weight = mask + 1e-6
    total = cv2.GaussianBlur(rgb * weight[..., None], (0, 0), sigma)
    return np.asarray(total / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None], np.float32)


def dome(head: Head, low: float, rng: Random) -> Mask:
    """What sits on a head above v = `low`: from a cap, over a beret that hangs to a side, to a turban or a top hat."""
    half, wide = rng.uniform(0.54, 0.66), rng.uniform(1.0, 1.6)
    high = max(low + rng.uniform(0.3, 1.0), head.crown + rng.uniform(0.02, 0.2))
    side, sag = rng.normal(0, 0.12), rng.uniform(-0.04, 0.12)
    full = rng.uniform(0.75, 1.0)  # how far up it keeps its width
    curve = [(-half, low - 0.03), (-half * wide, low + 0.3 * (high - low)), (side - half * wide * full, high)]
    curve += [(side + half * wide * full, high), (half * wide, low + 0.3 * (high - low)), (half, low - 0.03)]
    curve += [(0.3, low + sag), (-0.3, low + sag)]
    return head.area(curve)


def cap(rgb: Image, labels: Labels, head: Head, other: Image, rng: Random) -> tuple[Image, Labels]:
    """A cap, beret or turban, with a band or a peak at times."""
    low = rng.uniform(0.92, 1.2)
    texture = cloth(head.shape, other, rng)
    rgb, labels = cover(rgb, labels, dome(head, low, rng), texture)
    if rng.random() < 0.4:
        front = head.oval((rng.normal(0, 0.1), low), (rng.uniform(0.4, 0.62), rng.uniform(0.04, 0.12)))
        rgb, labels = cover(rgb, labels, front, texture * rng.uniform(0.4, 1.1))
    return rgb, labels


def brimmed_hat(rgb: Image, labels: Labels, head: Head, other: Image, rng: Random) -> tuple[Image, Labels]:
    """A hat whose brim lies before the forehead, or stands behind the face as a large disc."""
    low, turn = rng.uniform(0.95, 1.2), rng.normal(0, 0.12)
    texture = cloth(head.shape, other, rng)
    brim = head.oval((rng.normal(0, 0.1), low), (rng.uniform(0.8, 1.6), rng.uniform(0.06, 0.25)), turn)
    if rng.random() < 0.4:
        brim = head.oval((rng.normal(0, 0.15), low), (rng.uniform(0.9, 1.7), rng.uniform(0.5, 1.2)), turn)
        before = matte(labels, FACE) + matte(labels, HAIR) * (1 - head.above(low))
        brim = brim * (1 - np.clip(before, 0, 1))
    rgb, labels = cover(rgb, labels, dome(head, low, rng), texture)
    return cover(rgb, labels, brim, texture * rng.uniform(0.4, 1.1))


def hood(rgb: Image, labels: Labels, head: Head, other: Image, rng: Random) -> tuple[Image, Labels]:
    """A hood, veil or headscarf: cloth from above the head to the shoulders, around an opening for the face."""
    high, wide = max(head.crown, 1.45) + rng.uniform(0.02, 0.3), rng.uniform(0.8, 1.2)
    outer = [(-wide - 0.4, -0.8), (-wide, 0.4), (-wide * 0.9, 1.2), (-wide * 0.5, high), (0, high + 0.1)]
    outer += [(-u, v) for u, v in outer[3::-1]]
    opening = head.oval((rng.normal(0, 0.05), rng.uniform(0.4, 0.6)), (rng.uniform(0.48, 0.68), rng.uniform(0.6, 0.85)))
    if rng.random() < 0.5:  # open below: a veil
        opening = np.maximum(opening, head.area([(-0.55, 0.5), (0.55, 0.5), (0.8, -1.0), (-0.8, -1.0)]))
    return cover(rgb, labels, head.area(outer) * (1 - opening), cloth(head.shape, other, rng))


def bald(rgb: Image, labels: Labels, head: Head, other: Image, rng: Random) -> tuple[Image, Labels]:
    """A bald head: skin up to the crown; other hair becomes background or stays at the sides. Not where a hat is."""
    del other
    face, hair, free = matte(labels, FACE), matte(labels, HAIR), matte(labels, BACKGROUND)
    skull = head.oval((0, 0.75), (rng.uniform(0.43, 0.48), rng.uniform(0.6, 0.75))) * head.above(0.75)
    if (skull * hair).sum() < 0.15 * skull.sum():
        return rgb, labels
    top = head.oval((0, 1.5), (1.5, rng.uniform(0.5, 1.0))) if rng.random() < 0.5 else np.ones(head.shape, np.float32)
    behind = spread(rgb, (free == 1).astype(np.float32), 20)
    skin = spread(rgb, (face == 1) * head.above(0.85), 25)
    skin *= (0.7 + 0.3 * cv2.GaussianBlur(skull, (0, 0), 12))[..., None]
    rgb, labels = blend(rgb, labels, hair * np.maximum(top, skull), behind, BACKGROUND)
    return blend(rgb, labels, skull * (1 - face), skin, FACE)


def beard(rgb: Image, labels: Labels, head: Head, other: Image, rng: Random) -> tuple[Image, Labels]:
    """A beard around the mouth, often as dark as what is behind it; it is face, as the teacher has it."""
    del other
    low = rng.uniform(0.42, 0.6)
    mask = head.area(
        [(-0.6, low), (-0.25, rng.uniform(0.2, 0.35)), (0.25, 0.3), (0.6, low), (0.6, -0.2), (-0.6, -0.2)], 4
    )
    mouth = head.oval((0, 0.24), (0.16, 0.06), soft=2) if rng.random() < 0.7 else 0
    strands = cv2.GaussianBlur(rng.normal(0, 1, head.shape).astype(np.float32), (0, 0), sigmaX=0.6, sigmaY=3)
    colour = (rng.uniform(5, 60) if rng.random() < 0.7 else rng.uniform(60, 230)) * rng.uniform(0.7, 1.1, 3)
    paint = colour * (1 + rng.uniform(0, 1.2) * strands[..., None])
    return blend(
        rgb, labels, np.asarray(mask * (1 - mouth) * matte(labels, FACE) * rng.uniform(0.7, 1), np.float32), paint, None
    )


Case = Callable[[Image, Labels, Head, Image, Random], tuple[Image, Labels]]
CASES: tuple[Case, ...] = (cap, brimmed_hat, hood, bald, beard)


def dress(rgb: Image, labels: Labels, other: Image, rng: Random) -> tuple[Image, Labels]:
    """One of the cases at random, with cloth like `other` at times. An image with hardly a face stays as it is."""
    head = Head.of(labels)
    if head is None:
        return rgb, labels
    return CASES[int(rng.integers(len(CASES)))](rgb, labels, head, other, rng)
