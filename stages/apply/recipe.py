"""How a picture was made, in JSON that travels inside it: enough to make it again to the byte from the same images.

It names images by the sha256 of their files, never by path, and networks by that of their weights. A PNG carries it as
a text chunk, beside the IPTC mark of a generated picture.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from models.regions import REGIONS
from pipeline import ours
from pipeline.errors import UserError
from pipeline.sources.reader import contents
from stages.apply.edit import MOST
from stages.apply.look import MOST_STYLES

VERSION = 1
MOST_BYTES = 64 << 10
MOST_STEPS = 1000
MOST_SIZE = 8192
KEYWORD = "hypernst"
NETWORKS = {
    "detector",
    "generator",
    "head",
    "inverter",
    "parser",
    "aladin",
    "directions",
}  # others that a picture depends on
NOT_FINITE = "NaN and infinity are no numbers here"


@dataclass(frozen=True)
class Region:
    """A region's mix, style letters with weights that sum to 1 (none: as it is), and its strength t in [0, 1]."""

    mix: Mapping[str, float]
    t: float


@dataclass(frozen=True)
class Recipe:
    """What `Studio.render` was given: networks, portrait and styles by sha256, the regions' mixes, refinement steps.

    `portrait` has "sha256", "name" and, where they were asked for, "face" (a number) and "no_face". `styles` maps
    letters to "sha256", "key" and "title". `weights` names the sha256 of "hypernet" and of others of NETWORKS. `edits`
    has the steps along semantic directions, `size` the pixels of a side where it is not the profile's.
    """

    profile: str
    weights: Mapping[str, str]
    portrait: Mapping[str, Any]
    styles: Mapping[str, Mapping[str, str]]
    regions: Mapping[str, Region]
    refine: int
    edits: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None

    def dumps(self) -> str:
        """The recipe as JSON, always the same for the same recipe."""
        regions = {name: {"mix": dict(region.mix), "t": region.t} for name, region in self.regions.items()}
        told = {"hypernst": VERSION} | {**vars(self), "regions": regions}
        told = {name: value for name, value in told.items() if name not in ("edits", "size") or value}
        return json.dumps(told, default=dict, allow_nan=False)


def loads(text: str | bytes) -> Recipe:
    """A recipe from JSON. Raises: UserError(2) for anything that `Recipe.dumps` would not write; it names the field."""
    if len(text) > MOST_BYTES:
        raise _wrong(f"{len(text)} bytes; expected at most {MOST_BYTES}")
    try:
        told = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"no JSON ({error})") from error
    top = _fields(
        told, "it", {"hypernst", "profile", "weights", "portrait", "styles", "regions"}, {"refine", "edits", "size"}
    )
    if type(top["hypernst"]) is not int or top["hypernst"] != VERSION:
        raise _wrong(f"hypernst is {_shown(top['hypernst'])}; expected {VERSION}, this program's version of recipes")
    _text(top["profile"], "profile")
    weights = _fields(top["weights"], "weights", {"hypernet"}, NETWORKS)
    for name, value in weights.items():
        _sha256(value, f"weights.{name}")
    portrait = _fields(top["portrait"], "portrait", {"sha256", "name"}, {"face", "no_face"})
    _sha256(portrait["sha256"], "portrait.sha256")
    _text(portrait["name"], "portrait.name")
    if "face" in portrait:
        _whole(portrait["face"], "portrait.face", 1, 1000)
    if portrait.get("no_face", "keep") not in ("keep", "reject"):
        raise _wrong(f"portrait.no_face is {_shown(portrait['no_face'])}; expected keep or reject")
    styles = _mapping(top["styles"], "styles")
    if len(styles) > MOST_STYLES:
        raise _wrong(f"styles has {len(styles)} entries; expected at most {MOST_STYLES}")
    for letter, style in styles.items():
        _text(letter, "a letter in styles")
        _sha256(_fields(style, f"styles.{letter}", {"sha256"}, {"key", "title"})["sha256"], f"styles.{letter}.sha256")
        for name in set(style) - {"sha256"}:
            _text(style[name], f"styles.{letter}.{name}")
    regions = _fields(top["regions"], "regions", set(REGIONS), set())
    edits = _mapping(top.get("edits", {}), "edits")
    for name, steps in edits.items():
        _text(name, "a name in edits")
        fits = abs(steps) <= MOST if _is_number(steps) else False
        _number(steps, f"edits.{name}", f"from {-MOST:g} to {MOST:g}", fits)
    if "size" in top:
        _whole(top["size"], "size", 1, MOST_SIZE)
    refine = top.get("refine", 0)
    _whole(refine, "refine", 0, MOST_STEPS)
    made = {name: _region(regions[name], f"regions.{name}", styles) for name in REGIONS}
    return Recipe(top["profile"], weights, portrait, styles, made, refine, _steps(edits), top.get("size"))


def read(path: Path) -> Recipe:
    """The recipe in a .json file or a PNG. Raises: UserError(2) when there is none or it is wrong."""
    try:
        data = contents(str(path))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a recipe or a PNG that has one", 2
        ) from error
    try:
        return loads(_from_png(path) if data.startswith(b"\x89PNG") else data)
    except UserError as error:
        raise UserError(f"{path}: {error}", 2) from error


def mark(png: bytes, recipe: Recipe | None) -> bytes:
    """The PNG with the mark of a generated picture, and with the recipe if there is one."""
    texts = {ours.XMP: ours.GENERATED} | ({KEYWORD: recipe.dumps()} if recipe else {})
    return png[: ours.PNG_HEADER] + b"".join(_chunk(*pair) for pair in texts.items()) + png[ours.PNG_HEADER :]


def is_marked(png: bytes) -> bool:
    """Whether a file is a PNG that `mark` made."""
    return png[ours.PNG_HEADER :].startswith(_chunk(ours.XMP, ours.GENERATED))


def _chunk(keyword: str, text: str) -> bytes:
    """A PNG's iTXt chunk, not compressed."""
    body = b"iTXt" + keyword.encode() + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _from_png(path: Path) -> str:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            text = getattr(image, "text", {}).get(KEYWORD)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _wrong(f"no readable PNG ({error})") from error
    if text is None:
        raise UserError("this picture carries no recipe; expected one that `hypernst stylize` wrote", 2)
    return str(text)


def _steps(edits: Mapping[str, float]) -> dict[str, float]:
    """Those that change something, in order of name: nothing else tells recipes apart."""
    return {name: float(steps) for name, steps in sorted(edits.items()) if steps}


def _region(value: Any, where: str, styles: Mapping[str, Any]) -> Region:
    region = _fields(value, where, {"mix", "t"}, set())
    mix = _mapping(region["mix"], f"{where}.mix")
    for letter, weight in mix.items():
        if letter not in styles:
            raise _wrong(f"{where}.mix names {_shown(letter)}, which styles does not have")
        _number(weight, f"{where}.mix.{letter}", "above 0, at most 1", 0 < weight <= 1 if _is_number(weight) else False)
    if mix and not math.isclose(sum(mix.values()), 1, abs_tol=1e-6):
        raise _wrong(f"{where}.mix has weights of sum {sum(mix.values()):g}; expected 1")
    _number(region["t"], f"{where}.t", "from 0 to 1", 0 <= region["t"] <= 1 if _is_number(region["t"]) else False)
    return Region(mix, region["t"])


def _sha256(value: Any, where: str) -> None:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise _wrong(f"{where} is {_shown(value)}; expected 64 hex digits")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or set(value) & set("/\\"):
        raise _wrong(f"{where} is {_shown(value)}; expected a text of 1 to 255 characters, no path")


def _whole(value: Any, where: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise _wrong(f"{where} is {_shown(value)}; expected a whole number from {least} to {most}")


def _number(value: Any, where: str, expected: str, fits: bool) -> None:
    if not fits:
        raise _wrong(f"{where} is {_shown(value)}; expected a number {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fields(value: Any, where: str, needed: set[str], allowed: set[str]) -> dict[str, Any]:
    fields = _mapping(value, where)
    if unknown := sorted(set(fields) - needed - allowed):
        raise _wrong(f"{where} has {_shown(unknown[0])}; expected {', '.join(sorted(needed | allowed))}")
    if missing := sorted(needed - set(fields)):
        raise _wrong(f"{where} lacks {missing[0]!r}")
    return fields


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{where} is {_shown(value)}; expected an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(NOT_FINITE)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(text: str) -> UserError:
    return UserError(f"not a recipe: {text}", 2)
