"""The commands `stylize`, to a file or of many portraits and styles to a folder, and `interpolate`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.regions import REGIONS
from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import check_place, write_atomic
from pipeline.profile import NoFace
from pipeline.progress import say
from pipeline.reports import films, sheets
from pipeline.sources.reader import Reader, Source
from pipeline.sources.scan import LeftOut, scan
from stages.apply import edit, large
from stages.apply import recipe as recipes
from stages.apply.look import Look, Mix
from stages.apply.recipe import Recipe
from stages.apply.studio import Studio
from stages.portraits.portrait import Portrait

SHEET, REJECTS = "sheet.png", "rejects.jsonl"
SHOWN = 12  # contents and styles on the contact sheet


@dataclass(frozen=True)
class How:
    """What is asked for beside portraits and looks, as in `Studio.stylize`; `recipe`: a PNG tells how it was made."""

    refine: int
    edits: Mapping[str, float]
    size: int | None
    recipe: bool


Dish = tuple[str, Callable[[], Look]]  # a style's name for files, and how to come to its look


def run(
    ctx: Context,
    *,
    content: Sequence[Path],
    output: Path,
    style: Sequence[Path] = (),
    weight: Sequence[float] = (),
    mix: Mix = "mean",
    strength: float | None = None,
    hair: Path | None = None,
    face: Path | None = None,
    background: Path | None = None,
    refine: int | None = None,
    no_face: NoFace | None = None,
    which: int | None = None,
    edits: Mapping[str, float] | None = None,
    size: int | None = None,
    recipe: Path | None = None,
    with_recipe: bool = True,
) -> int:
    """Write the stylised portrait to a file, or each portrait in each style to a folder.

    `content` are images, folders or archives. One `style` may be a folder or an archive: then each image in it is a
    style; several are mixed by their `weight`, with `mix` "robust" less by those unlike the others. `hair`, `face` and
    `background` override `style` in their region.
    `which` of several faces in the content is taken, counted from the left and from 1; None: the largest. `no_face`
    "keep" takes the central square of a content without a face.
    `refine` steps of refinement follow the prediction; None takes as many as usual where refinement can be had. `edits`
    and `size` are as in `Studio.stylize`.
    With `recipe`, a .json file or a PNG that carries one, only the images are named: its styles are recognised by their
    content. A PNG carries its own recipe unless `with_recipe` is false.
    Returns 1 when no picture could be made. Raises: UserError when the options are wrong (2; checked before anything
    is loaded), or the only image cannot be used (1).
    """
    unlike_recipe = (refine, edits, size, None if mix == "mean" else mix)
    _check_options(output, style, weight, strength, (hair, face, background), recipe, unlike_recipe)
    many = output.suffix.lower() not in images.SUFFIXES or output.is_dir()
    check_place(output / SHEET if many else output, filter(None, (*content, *style, hair, face, background, recipe)))
    studio = Studio(ctx, progress=told)
    asked = recipes.read(recipe) if recipe else None
    how = How(studio.steps(refine), edits or {}, size, with_recipe)
    if asked:
        how = replace(how, refine=studio.steps(asked.refine), edits=asked.edits, size=asked.size)
    how = replace(how, edits=edit.checked(ctx, how.edits), size=large.checked(ctx, how.size))
    contents = _sources(content, output if many else None)
    chosen = {name: path for name, path in zip(REGIONS, (hair, face, background), strict=True) if path is not None}
    dishes = _dishes(
        studio, style, weight, mix, 1.0 if strength is None else strength, chosen, asked, output if many else None
    )
    if not many and (len(contents) > 1 or len(dishes) > 1):
        raise UserError(
            f"{output}: is one file, for {len(contents)} portraits in {len(dishes)} styles; expected a folder", 2
        )
    if asked and (other := studio.differs(asked)):
        say(f"{recipe}: {other}")
    options: dict[str, Any] = {
        "face": which if which is not None else (asked.portrait.get("face") if asked and len(contents) == 1 else None),
        "no_face": no_face or (asked.portrait.get("no_face") if asked else None),
    }
    if many:
        return _batch(studio, contents, dishes, how, output, options)
    portrait = _read(studio, Reader(), contents[0], **options)
    _write(studio, portrait, dishes[0][1](), how, output)
    say(f"stylize: made with {studio.origin()}")
    print(output)
    return 0


def interpolate(
    ctx: Context, *, content: Path, styles: Sequence[Path], output: Path, frames: int = 48, refine: int = 0
) -> int:
    """Write a walk of the portrait from style to style: a strip (.png), a film (.webm, .gif), or a folder of pictures.

    `styles` are images, or folders or archives of them, in order of key.
    Raises: UserError as `Studio.interpolate`; (2) when the output is none of these.
    """
    films.check(output, (content, *styles))
    studio, reader = Studio(ctx, progress=told), Reader()
    sources = _sources(styles, None)
    found = studio.interpolate(content, [_read(studio, reader, s, style=True) for s in sources], frames, refine)
    films.write(output, found, lambda rgb: recipes.mark(images.encode(rgb), None), recipes.is_marked)
    say(f"interpolate: made with {studio.origin()}")
    print(output)
    return 0


def told(what: str, done: int, of: int) -> None:
    """Say what is being done."""
    say(f"stylize: {what} ({done}/{of})" if of > 1 else f"stylize: {what}")


def _check_options(
    output: Path,
    style: Sequence[Path],
    weight: Sequence[float],
    strength: float | None,
    by_region: Sequence[Path | None],
    recipe: Path | None,
    others: Sequence[Any],
) -> None:
    """Raises: UserError(2) for what cannot be meant."""
    if output.suffix and output.suffix.lower() not in images.SUFFIXES and not output.is_dir():
        raise UserError(
            f"{output}: expected an image's name, ending in {', '.join(images.SUFFIXES)}, or a folder's, without a dot",
            2,
        )
    if strength is not None and not 0 <= strength <= 1:
        raise UserError(f"--strength is {strength:g}; expected 0 (the content's own style) to 1 (the full style)", 2)
    if recipe and (any(by_region) or weight or strength is not None or any(other is not None for other in others)):
        raise UserError(
            "--recipe says strengths, mixes, regions, refinement, edits and size itself; leave those out", 2
        )
    if weight and len(weight) != len(style):
        raise UserError(f"{len(weight)} --weight for {len(style)} --style; expected one for each, or none", 2)
    if not all(0 < value < math.inf for value in weight):
        raise UserError(f"--weight is {', '.join(f'{value:g}' for value in weight)}; expected numbers above 0", 2)
    missing = ", ".join(f"--{name}" for name, path in zip(REGIONS, by_region, strict=True) if path is None)
    if not style and missing and not recipe:
        raise UserError(f"there is no style for {missing}; name one with --style, or one for each of the regions", 2)


def _sources(places: Sequence[Path], output: Path | None) -> list[Source]:
    """The images at some places, in order of key in each."""
    found = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: is not a file; expected an image, or a folder or an archive of them", 2)
        found += scan(place, None, {output: "the output folder"} if output else None, left := LeftOut())
        left.tell(place)
    return found


def _read(studio: Studio, reader: Reader, source: Source, **options: Any) -> Portrait:
    """The portrait or style in an image's file. Raises: UserError when it cannot be used."""
    try:
        if source.problem:
            raise OSError(0, source.problem)
        data = reader.read(source)
    except OSError as error:
        raise UserError(f"{source.path}: {error.strerror}") from error
    return studio.read(data, name=Path(source.path).name, **options)


def _dishes(
    studio: Studio,
    style: Sequence[Path],
    weight: Sequence[float],
    mix: Mix,
    strength: float,
    chosen: dict[str, Path],
    asked: Recipe | None,
    output: Path | None,
) -> list[Dish]:
    """The looks that are asked for; images are read when a look is first needed."""
    for path in (*chosen.values(), *(style if len(style) > 1 and not asked else ())):
        if not path.is_file():
            raise UserError(f"{path}: is not a file; expected an image", 2)
    reader = Reader()
    sources = _sources(style, output) if len(style) == 1 or asked else []
    if asked:
        return [("recipe", lambda: studio.cook(asked, [_read(studio, reader, s, style=True) for s in sources]))]
    if len(style) > 1:
        mixed: Any = list(zip(style, weight or [1.0] * len(style), strict=True))
        return [("mix", lambda: studio.look(_by_region(chosen, mixed), strength, mix))]
    if mix == "robust":
        raise UserError("a robust mix takes three --style or more", 2)
    if not style:
        return [("regions", lambda: studio.look(chosen, strength))]

    def look(source: Source) -> Look:
        return studio.look(_by_region(chosen, _read(studio, reader, source, style=True)), strength)

    return [(source.key, partial(look, source)) for source in sources]


def _by_region(chosen: dict[str, Path], style: Any) -> Any:
    return {name: chosen.get(name, style) for name in REGIONS} if chosen else style


def _write(studio: Studio, portrait: Portrait, look: Look, how: How, output: Path) -> Image.Image | None:
    """Write a picture, unless the same recipe's is there already: then None."""
    portrait = studio.edit(portrait, how.edits)
    made = studio.recipe(portrait, look, how.refine, how.size)
    png = output.suffix.lower() == ".png"
    if how.recipe and png and output.is_file() and _recipe_in(output) == made:
        return None
    image = studio.render(portrait, look, how.refine, size=how.size)
    data = images.encode(np.asarray(image), output.suffix.lower())
    write_atomic(output, recipes.mark(data, made if how.recipe else None) if png else data)
    return image


def _recipe_in(path: Path) -> Recipe | None:
    try:
        return recipes.read(path)
    except UserError:
        return None


def _batch(
    studio: Studio,
    contents: Sequence[Source],
    dishes: Sequence[Dish],
    how: How,
    folder: Path,
    options: dict[str, Any],
) -> int:
    """Every portrait in every style as FOLDER/PORTRAIT--STYLE.png, with a contact sheet; what is there stays."""
    reader = Reader()
    rejects: dict[str, str] = {}
    made = there = 0

    def usable(path: str, read: Callable[[], Any]) -> Any:
        if path not in rejects:
            try:
                return read()
            except UserError as error:
                rejects[path] = str(error).removeprefix(f"{Path(path).name}: ")
                say(f"{path}: left out: {rejects[path]}")
        return None

    for source in contents:
        portrait = usable(source.path, partial(_read, studio, reader, source, **options))
        for name, look in dishes if portrait else ():
            wanted = usable(f"style {name}", look)
            if wanted is not None:
                output = folder / f"{source.key}--{name}.png"
                new = _write(studio, portrait, wanted, how, output) is not None
                made, there = made + new, there + (not new)
                print(output)
    lines = [json.dumps({"path": path, "reason": reason}, ensure_ascii=False) for path, reason in rejects.items()]
    write_atomic(folder / REJECTS, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
    if made or there:
        write_atomic(folder / SHEET, recipes.mark(images.encode(_sheet(folder, contents, dishes)), None))
    say(f"stylize: {made} made, {there} there already, {len(rejects)} left out; made with {studio.origin()}")
    return 0 if made or there else 1


def _sheet(folder: Path, contents: Sequence[Source], dishes: Sequence[Dish]) -> np.ndarray:
    """A contact sheet u8 [H, W, 3] of the first portraits, a row each, in the first styles."""
    there = (name for name, _ in dishes if any((folder / f"{one.key}--{name}.png").exists() for one in contents))
    names = list(islice(there, SHOWN))
    return sheets.grid(list(_rows(folder, contents, names)), names)


def _rows(folder: Path, contents: Sequence[Source], names: Sequence[str]) -> Iterator[list[np.ndarray]]:
    empty = np.full((8, 8, 3), 255, np.uint8)
    rows = ([folder / f"{source.key}--{name}.png" for name in names] for source in contents)
    for paths in islice((row for row in rows if any(path.exists() for path in row)), SHOWN):
        yield [images.decode(path.read_bytes()) if path.exists() else empty for path in paths]
