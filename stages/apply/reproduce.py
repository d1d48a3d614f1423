"""From a portrait and its look to a recipe, and from a recipe to the look."""

from collections.abc import Callable, Sequence
from string import ascii_lowercase

from models.regions import REGIONS
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.sources.keys import key_of
from stages.apply.look import Look, Part
from stages.apply.recipe import Recipe, Region
from stages.loaders import directions, hypernetwork
from stages.portraits.portrait import Origin, Portrait, identity


def recipe(ctx: Context, content: Portrait, look: Look, refine: int, size: int | None = None) -> Recipe:
    """How a picture is made. Raises: UserError(2) for portraits that were not read from a file."""
    origins = {letter: _origin(style) for letter, style in zip(ascii_lowercase, look.styles, strict=False)}
    letters = {identity(style): letter for letter, style in zip(ascii_lowercase, look.styles, strict=False)}
    mine = _origin(content)
    asked = {"face": mine.face, "no_face": mine.no_face}
    regions = {}
    for name, part in zip(REGIONS, look.parts, strict=True):
        mix: dict[str, float] = {}
        for style, weight in part.styles:
            letter = letters[identity(style)]
            mix[letter] = mix.get(letter, 0.0) + weight
        regions[name] = Region(mix, part.strength)
    return Recipe(
        ctx.profile.name,
        networks(ctx) | ({"directions": directions.sha256(ctx)} if content.edits else {}),
        {"name": mine.name, "sha256": mine.sha256} | {n: v for n, v in asked.items() if v is not None},
        {
            letter: {"key": key_of(origin.name), "sha256": origin.sha256, "title": origin.name}
            for letter, origin in origins.items()
        },
        regions,
        refine,
        dict(content.edits),
        size,
    )


def look(recipe: Recipe, given: Sequence[Portrait], kept: Callable[[str, str], Portrait | None]) -> Look:
    """The look of a recipe, with the styles that are given or else kept under a name and sha256.

    Raises: UserError(2) when a style is neither.
    """
    known = {style.origin.sha256: style for style in given if style.origin}
    found = {}
    for letter, told in recipe.styles.items():
        title = told.get("title") or told.get("key") or letter
        style = known.get(told["sha256"]) or kept(title, told["sha256"])
        if style is None:
            digits = told["sha256"][:12]
            raise UserError(f"the recipe's style {title} (sha256 {digits}...) is not there; name its file", 2)
        found[letter] = style
    parts = [
        Part(tuple((found[letter], weight) for letter, weight in region.mix.items()), float(region.t))
        for region in (recipe.regions[name] for name in REGIONS)
    ]
    return Look((parts[0], parts[1], parts[2]))


def differs(ctx: Context, recipe: Recipe) -> str:
    """Which networks a recipe names that the profile does not have, in a line; "" if there are none."""
    own = {"profile": ctx.profile.name, "directions": directions.sha256(ctx)} | networks(ctx)
    theirs = {"profile": recipe.profile} | dict(recipe.weights)
    other = [name for name, value in theirs.items() if own.get(name) != value]
    return f"made with another {' and '.join(other)} than here: the picture will differ" if other else ""


def networks(ctx: Context) -> dict[str, str]:
    """The sha256 of the weights that a picture depends on, by what they are for."""
    p = ctx.profile
    named = {
        "detector": "" if p.align.detector == "none" else p.align.detector,
        "generator": p.generator.weights,
        "head": p.generator.head,
        "inverter": p.inverter.weights,
        "parser": p.parser.weights,
        "aladin": p.aladin.weights,
    }
    others = {network: weights.sha256(name) for network, name in named.items() if name}
    return {"hypernet": hypernetwork.sha256(ctx)} | others


def _origin(portrait: Portrait) -> Origin:
    if portrait.origin is None:
        raise UserError(f"{portrait.key}: was not read from a file here, so that no recipe can name it", 2)
    return portrait.origin
