"""The parser's training images: labelled faces, repainted and warped so that only the shape of a portrait helps.

Images are uint8 RGB [H, W, 3]; labels are uint8 [H, W, 3] probabilities of hair, face and background; 255 is 1.
"""

from collections.abc import Callable

import cv2
import numpy as np

from stages.pretrain.parser_headwear import FACE, Image, Labels, Random, dress, enlarged_corner, matte


def pencil(rgb: Image, rng: Random) -> Image:
    """A graphite drawing: grey divided by its own blur leaves the lines."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    base = cv2.GaussianBlur(grey, (0, 0), rng.uniform(2.0, 8.0))
    lines = np.clip(grey / np.maximum(base, 1) * 255, 0, 255)
    shade = rng.uniform(0.0, 0.5)
    drawn = lines * (1 - shade) + grey * shade
    paper = rng.uniform(200, 255, 3) if rng.random() < 0.5 else np.full(3, 255.0)
    return np.clip(drawn[..., None] / 255 * paper, 0, 255).astype(np.uint8)


def ink(rgb: Image, rng: Random) -> Image:
    """Ink lines (a thresholded difference of Gaussians), on paper or over the image's own colours."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    sigma = rng.uniform(0.7, 2.0)
    edge = cv2.GaussianBlur(grey, (0, 0), sigma) - rng.uniform(0.95, 0.99) * cv2.GaussianBlur(grey, (0, 0), sigma * 1.6)
    mask = np.clip(1 + np.tanh(rng.uniform(20, 80) * (edge - rng.uniform(0.0, 0.01))), 0, 1)[..., None]
    under = flat(rgb, rng).astype(np.float32) if rng.random() < 0.6 else np.full_like(rgb, 250, dtype=np.float32)
    return np.clip(under * mask, 0, 255).astype(np.uint8)


def flat(rgb: Image, rng: Random) -> Image:
    """Flat colour areas: smoothing, then the nearest of a few colours found by k-means."""
    smooth = cv2.medianBlur(rgb, 5)
    small = cv2.resize(smooth, (24, 24), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    count = int(rng.integers(4, 14))
    centres = small[rng.choice(len(small), count, replace=False)]
    for _ in range(4):
        nearest = np.square(small[:, None] - centres).sum(2).argmin(1)
        centres = np.stack([small[nearest == i].mean(0) if (nearest == i).any() else centres[i] for i in range(count)])
    grid = np.mgrid[4:256:8, 4:256:8, 4:256:8].reshape(3, -1).T.astype(np.float32)
    table = (grid @ (2 * centres.T) - np.square(centres).sum(1)).argmax(1).reshape(32, 32, 32)
    r, g, b = (smooth >> 3).transpose(2, 0, 1)
    return centres.astype(np.uint8)[table[r, g, b]]


def paint(rgb: Image, rng: Random) -> Image:
    """Soft brush patches: the mean of the calmest of four windows beside each pixel (Kuwahara's filter)."""
    radius = int(rng.integers(2, 6))
    image = rgb.astype(np.float32)
    mean = cv2.blur(image, (radius, radius))
    spread = (cv2.blur(image * image, (radius, radius)) - mean * mean).sum(2)
    half = radius // 2 + 1
    best, lowest = mean, np.full(spread.shape, np.inf, np.float32)
    for dy in (-half, half):
        for dx in (-half, half):
            candidate = np.roll(spread, (dy, dx), (0, 1))
            better = candidate < lowest
            best = np.where(better[..., None], np.roll(mean, (dy, dx), (0, 1)), best)
            lowest = np.where(better, candidate, lowest)
    return np.clip(best, 0, 255).astype(np.uint8)


def smooth(rgb: Image, rng: Random) -> Image:
    """Edge-preserving smoothing: skin without texture, as in digital painting."""
    reach, tolerance = float(rng.uniform(10, 60)), float(rng.uniform(0.2, 0.5))
    return np.asarray(cv2.edgePreservingFilter(rgb, flags=1, sigma_s=reach, sigma_r=tolerance), np.uint8)


REPAINTS: tuple[Callable[[Image, Random], Image], ...] = (pencil, ink, flat, paint, smooth)


def recolour_regions(rgb: Image, labels: Labels, rng: Random) -> Image:
    """Give each region its own tint, contrast and brightness: blue faces, white hair, red skies."""
    image, out = rgb.astype(np.float32), np.zeros(rgb.shape, np.float32)
    for region in range(3):
        part = image
        if rng.random() < 0.6:
            gain = (rng.uniform(0.3, 1.2) * rng.uniform(0.7, 1.3, 3)).astype(np.float32)
            level = rng.uniform(30, 225, 3) if rng.random() < 0.7 else np.full(3, rng.uniform(10, 245))
            weight = labels[..., region : region + 1].astype(np.float32)
            centre = np.tensordot(weight[..., 0], image, 2) / max(float(weight.sum()), 1.0)
            keep = rng.uniform(0.0, 0.8)
            part = image * gain + (centre * (keep - gain) + level * (1 - keep)).astype(np.float32)
        out += part * labels[..., region : region + 1].astype(np.float32) / 255
    return np.clip(out, 0, 255).astype(np.uint8)


def replace_background(rgb: Image, labels: Labels, other: Image, rng: Random) -> Image:
    """Another background: one colour, a gradient, or an enlarged corner of another image."""
    height, width = rgb.shape[:2]
    choice = rng.random()
    if choice < 0.4:
        back = np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), rgb.shape)
    elif choice < 0.6:
        back = cv2.resize(rng.uniform(0, 255, (2, 2, 3)).astype(np.float32), (width, height))
    else:
        back = enlarged_corner(other, int(rng.integers(height // 8, height // 3)), (height, width), rng)
    behind = labels[..., 2:3].astype(np.float32) / 255
    return (rgb * (1 - behind) + back * behind).astype(np.uint8)


def flat_regions(rgb: Image, labels: Labels, rng: Random) -> Image:
    """A cartoon: hair and face, at times the background too, in one colour each, under the image's lines."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lines = np.clip(grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), rng.uniform(2, 5)), 1), 0, 1)
    out = rgb.astype(np.float32)
    for region in range(3 if rng.random() < 0.5 else 2):
        bright = rng.uniform(120, 250) if region == FACE else rng.uniform(5, 60 if rng.random() < 0.6 else 240)
        weight = matte(labels, region)[..., None]
        out = out * (1 - weight) + bright * rng.uniform(0.7, 1.1, 3).astype(np.float32) * weight
    out *= (np.clip(1 - rng.uniform(1, 5) * (1 - lines), 0, 1))[..., None]
    if rng.random() < 0.5:
        outline = cv2.morphologyEx(labels.argmax(2).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
        out *= 1 - cv2.GaussianBlur((outline > 0).astype(np.float32), (0, 0), rng.uniform(0.5, 1.2))[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


def candlelight(rgb: Image, labels: Labels, rng: Random) -> Image:
    """Light on the face alone: hair and background sink into nearly the same dark."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    middle, reach = rng.normal(0.5, 0.08, 2) * (width, height), rng.uniform(0.2, 0.5) * width
    light = np.exp(-(np.square(x - middle[0]) + np.square(y - middle[1])) / reach**2)
    floor, dark = rng.uniform(0.05, 0.5), rng.uniform(5, 50) * rng.uniform(0.6, 1.1, 3)
    sunk = rng.uniform(0, 0.8) * (1 - matte(labels, FACE)[..., None])
    lit = rgb * (floor + (1 - floor) * light)[..., None]
    return np.clip(lit * (1 - sunk) + dark * sunk, 0, 255).astype(np.uint8)


def frame(rgb: Image, labels: Labels, rng: Random) -> tuple[Image, Labels]:
    """An oval or rectangular mount around the portrait, in one colour; it is background."""
    height, width = rgb.shape[:2]
    y, x = np.abs(np.mgrid[0:height, 0:width] / np.float32(height) * 2 - 1)
    power = 2 if rng.random() < 0.5 else 20
    inner = (x / rng.uniform(0.8, 1.0)) ** power + (y / rng.uniform(0.85, 1.05)) ** power < 1
    out = np.where(inner[..., None], rgb, rng.uniform(0, 255, 3).astype(np.uint8))
    return out, np.where(inner[..., None], labels, np.array([0, 0, 255], np.uint8))


def colour(rgb: Image, rng: Random) -> Image:
    """Changes of tone in the whole image: grey, sepia, saturation, gamma, contrast, channel order, negative, noise."""
    image = rgb.astype(np.float32) / 255
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    choice = rng.random()
    if choice < 0.15:
        image = np.repeat(grey[..., None], 3, 2)
    elif choice < 0.25:
        image = grey[..., None] * rng.uniform(0.5, 1.2, 3).astype(np.float32)
    elif choice < 0.35:
        image = image[..., rng.permutation(3)]
    else:
        image = grey[..., None] + (image - grey[..., None]) * rng.uniform(0.3, 1.8)
    if rng.random() < 0.03:
        image = 1 - image
    image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.6)
    image = (image - 0.5) * rng.uniform(0.4, 1.4) + 0.5 + rng.uniform(-0.15, 0.15, 3).astype(np.float32) * rng.random()
    if rng.random() < 0.25:
        grain = rng.normal(0, rng.uniform(0.01, 0.08), grey.shape).astype(np.float32)
        if rng.random() < 0.5:
            grain = 2 * cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 2.0))
        image = image + grain[..., None]
    out = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.2:
        side = int(rng.integers(64, 160))
        out = cv2.resize(cv2.resize(out, (side, side), interpolation=cv2.INTER_AREA), rgb.shape[1::-1])
    return out


def bend(rgb: Image, labels: Labels, rng: Random) -> tuple[Image, Labels]:
    """Flip, rotate, scale, shear, tilt, shift and warp image and labels together: caricatures are warped faces."""
    height, width = rgb.shape[:2]
    turn = np.deg2rad(rng.normal(0, 8) if rng.random() < 0.8 else rng.uniform(-30, 30))
    scale = float(np.exp(rng.uniform(-0.25, 0.3)))
    shift = rng.normal(0, 0.05, 2) * (width, height)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - width / 2, y - height / 2
    if rng.random() < 0.5:
        x = -x
    x, y = x + rng.normal(0, 0.08) * y, y + rng.normal(0, 0.04) * x
    depth = np.maximum(1 + (rng.normal(0, 0.12) * x + rng.normal(0, 0.08) * y) / width, 0.5)
    x, y = x / depth, y / depth
    stretch = float(np.exp(rng.normal(0, 0.07)))
    u = (np.cos(turn) * x - np.sin(turn) * y) / scale * stretch + width / 2 + shift[0]
    v = (np.sin(turn) * x + np.cos(turn) * y) / scale / stretch + height / 2 + shift[1]
    if rng.random() < 0.5:
        nodes = rng.normal(0, rng.uniform(2, 9), (int(rng.integers(4, 7)),) * 2 + (2,)).astype(np.float32)
        field = cv2.resize(nodes, (width, height), interpolation=cv2.INTER_CUBIC)
        u, v = u + field[..., 0], v + field[..., 1]
    u, v = u.astype(np.float32), v.astype(np.float32)
    bent = cv2.remap(rgb, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return bent, cv2.remap(labels, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def draw_plain(rgb: Image, labels: Labels, other: Image, rng: Random) -> tuple[Image, Labels]:
    """Like `draw`, but only warped: a photo stays a photo."""
    return bend(rgb, labels, rng)


def draw_art(rgb: Image, labels: Labels, rng: Random) -> tuple[Image, Labels]:
    """Art with labels of its own: warped, and in other colours at times."""
    rgb, labels = bend(rgb, labels, rng)
    return (colour(rgb, rng) if rng.random() < 0.5 else rgb), labels


def draw(rgb: Image, labels: Labels, other: Image, rng: Random) -> tuple[Image, Labels]:
    """One training pair of image and labels; a corner of `other` may become the background."""
    if rng.random() < 0.15:
        rgb = replace_background(rgb, labels, other, rng)
    if rng.random() < 0.35:
        rgb = (recolour_regions if rng.random() < 0.7 else flat_regions)(rgb, labels, rng)
    if rng.random() < 0.4:  # after the regions' colours, or headwear would take the background's
        rgb, labels = dress(rgb, labels, other, rng)
    rgb, labels = bend(rgb, labels, rng)
    if rng.random() < 0.4:
        rgb = REPAINTS[int(rng.integers(len(REPAINTS)))](rgb, rng)
    if rng.random() < 0.15:
        rgb = candlelight(rgb, labels, rng)
    if rng.random() < 0.6:
        rgb = colour(rgb, rng)
    if rng.random() < 0.05:
        rgb, labels = frame(rgb, labels, rng)
    return rgb, labels
