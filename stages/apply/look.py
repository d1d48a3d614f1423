"""How a portrait is to look: for each region a mix of styles, and how far the region goes towards it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from models.hypernetworks.hypernetwork import mix_codes
from models.regions import REGION_COUNT, REGIONS
from pipeline.errors import UserError
from stages.portraits.portrait import Portrait, Target, identity

MOST_STYLES = 8  # in one look
ROUNDS, NEAR = 50, 1e-3  # of a robust mix: rounds, and the distance from which on a style is as near as can be
Mix = Literal["mean", "robust"]
Styles = tuple[tuple[Portrait, float], ...]  # with their weights


@dataclass(frozen=True)
class Part:
    """A region's styles with weights that sum to 1, and its strength: 0 keeps the portrait's own style, 1 takes theirs.

    Without a style it stays as it is.
    """

    styles: Styles = ()
    strength: float = 0.0

    def code(self, index: int) -> np.ndarray:
        """The styles' codes [256] of one region (3: of the whole image), mixed by weight, of unit length."""
        codes = [style.codes[index] for style, _ in self.styles]
        if len(codes) == 1:
            return codes[0]
        mixed = sum(weight * torch.from_numpy(code) for code, (_, weight) in zip(codes, self.styles, strict=True))
        return F.normalize(torch.as_tensor(mixed), dim=-1).numpy()


@dataclass(frozen=True)
class Look:
    """The parts of hair, face and background. Pixels of no known region follow the background."""

    parts: tuple[Part, Part, Part]

    def codes(self, content: Portrait) -> np.ndarray:
        """The codes [4, 256] that the portrait is rendered with: between its own and those of its styles."""
        parts = [self.parts[min(i, REGION_COUNT - 1)] for i in range(REGION_COUNT + 1)]
        styles = [part.code(i) if part.styles else content.codes[i] for i, part in enumerate(parts)]
        strengths = torch.tensor([[part.strength] for part in parts])
        own, wanted = torch.from_numpy(content.codes).float(), torch.from_numpy(np.stack(styles)).float()
        return mix_codes(own, wanted, strengths).numpy()

    def palette(self, content: Portrait) -> np.ndarray | None:
        """The palette [4, 4] that the picture is to have, mixed as codes are; None where an image is not known."""
        own = (content.base or content).palette
        palettes = [style.palette for style in self.styles]
        if own is None or any(palette is None for palette in palettes):
            return None
        wanted = own.copy()
        for index in range(REGION_COUNT + 1):
            part = self.parts[min(index, REGION_COUNT - 1)]
            if part.styles:
                mixed = sum(weight * style.palette[index] for style, weight in part.styles if style.palette is not None)
                wanted[index] = (1 - part.strength) * own[index] + part.strength * mixed
        return wanted

    def target(self, content: Portrait) -> Target:
        """What the picture of the portrait is to have of the styles."""
        return Target(self.codes(content), self.palette(content))

    def own(self) -> "Look":
        """The look at strength 0: the portrait's own style."""
        hair, face, background = (replace(part, strength=0.0) for part in self.parts)
        return Look((hair, face, background))

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from other looks: an entry for each region."""
        return tuple((p.strength, *((identity(style), weight) for style, weight in p.styles)) for p in self.parts)

    @property
    def uniform(self) -> bool:
        """Whether all regions take the same styles with the same weights and strength."""
        return len(set(self.key)) == 1

    @property
    def styles(self) -> list[Portrait]:
        """Every style of it, once, in the order in which the parts name them."""
        return list({identity(style): style for part in self.parts for style, _ in part.styles}.values())


def whole(style: Portrait, strength: float = 1.0) -> Look:
    """One style for all regions."""
    part = Part(((style, 1.0),), strength)
    return Look((part, part, part))


def compose(
    style: Any, strength: float | Mapping[str, float], read: Callable[[Any], Portrait], mix: Mix = "mean"
) -> Look:
    """The look that a style, several, or a mapping from regions to these describe; `read` makes portraits of images.

    Several are a list of images, or of (image, weight). A region that a mapping does not name stays as it is. The mix
    "robust" gives styles that are unlike the others less weight, region by region.
    Raises: UserError(2) when a region, a weight, a strength, a mix or the number of styles is wrong.
    """
    if mix not in ("mean", "robust"):
        raise UserError(f"mix is {mix!r}; expected mean or robust", 2)
    by_region = isinstance(style, Mapping)
    _known(style if by_region else {}, "style")
    if by_region and not style:
        raise UserError(f"no style: expected an image, or one for any of {', '.join(REGIONS)}", 2)
    strengths = _strengths(strength)
    if by_region:
        mixes = {name: _mix(value, read) for name, value in style.items()}
    else:
        mixes = dict.fromkeys(REGIONS, _mix(style, read))
    if mix == "robust":
        alone = {name for name, styles in mixes.items() if by_region and len(styles) == 1}
        mixes |= {name: _robust(mixes[name], REGIONS.index(name)) for name in set(mixes) - alone}
    hair, face, background = (Part(mixes[name], strengths[name]) if name in mixes else Part() for name in REGIONS)
    look = Look((hair, face, background))
    if len(look.styles) > MOST_STYLES:
        raise UserError(f"{len(look.styles)} styles; expected at most {MOST_STYLES} for one portrait", 2)
    return look


def _strengths(strength: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(strength, Mapping):
        _known(strength, "strength")
        given = {name: strength.get(name, 1.0) for name in REGIONS}
    else:
        given = dict.fromkeys(REGIONS, strength)
    for value in given.values():
        if not _is_number(value) or not 0 <= value <= 1:
            raise UserError(f"strength is {value!r}; expected 0 (the portrait's own style) to 1 (the full style)", 2)
    return {name: float(value) for name, value in given.items()}


def _mix(given: Any, read: Callable[[Any], Portrait]) -> Styles:
    entries: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    if len(entries) == 2 and _is_number(entries[1]):
        entries = [entries]
    if not entries:
        raise UserError("an empty list of styles; expected at least one image", 2)
    pairs = [entry if isinstance(entry, tuple) and len(entry) == 2 else (entry, 1.0) for entry in entries]
    for _, weight in pairs:
        if not _is_number(weight) or not 0 < weight < math.inf:
            raise UserError(f"a style's weight is {weight!r}; expected a number above 0", 2)
    total = sum(float(weight) for _, weight in pairs)
    return tuple((read(image), float(weight) / total) for image, weight in pairs)


def _robust(mix: Styles, region: int) -> Styles:
    """The mix with the weights that make it the geometric median of the styles' codes of a region (Weiszfeld's way).

    One style far from the others then moves it little, however far it is.
    """
    if len(mix) < 3:
        raise UserError(f"a robust mix of {len(mix)} styles; expected three or more, as two tell no outlier", 2)
    codes = np.stack([style.codes[region] for style, _ in mix]).astype(np.float64)
    given = weights = np.array([weight for _, weight in mix])
    for _ in range(ROUNDS):
        weights = given / np.linalg.norm(codes - weights @ codes, axis=1).clip(NEAR)
        weights = weights / weights.sum()
    return tuple((style, float(weight)) for (style, _), weight in zip(mix, weights, strict=True))


def _known(given: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in REGIONS:
            raise UserError(f"{what}: there is no region {name!r}; expected {', '.join(REGIONS)}", 2)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
