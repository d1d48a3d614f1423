"""The commands that measure, and those that make images."""

from pathlib import Path
from typing import Any

import click

from stages.cli import options
from stages.cli.options import FILE, FOLDER, PLACE, context, finish, given, quick_imports

STEPS = click.FloatRange(-5, 5)  # along a semantic direction


@click.command("eval")
@options.settings("profile", "cache", "run", "limit", "device")
@click.option("--all", "everything", is_flag=True, help="Measure images that training may have seen, too.")
@click.option(
    "--methods", metavar="NAME,...", help="Compare only these; the table says which cannot run [default: all]."
)
@click.option(
    "--budget", type=click.IntRange(min=0), help="Pairs for methods that optimise each [default: the profile's]."
)
@click.option("--strength", type=click.FloatRange(0, 1), help="0: the portrait as it is; 1: the full style [default].")
@options.as_json
def evaluate(
    everything: bool, methods: str | None, budget: int | None, strength: float | None, as_json: bool, **settings: Any
) -> None:
    """Compare the methods over content x style pairs held out from training."""
    from stages.evaluate import comparison
    from stages.evaluate.methods import chosen

    ctx = context(settings)
    picked = chosen([name.strip() for name in methods.split(",")]) if methods is not None else None
    status = comparison.run(ctx, everything=everything, **given(methods=picked, budget=budget, strength=strength))
    finish((comparison.folder(ctx) / "results.json").read_text() if as_json else status)


@click.command()
@options.settings("profile", "cache", "run", "retry-rejected", "engine", "device")
@click.argument("portraits", type=FOLDER)
@click.option("--sheet", type=FILE, help="Write the measured grid as this image.")
@click.option("--control-sheet", type=FILE, help="Write hair and face in two styles as this image.")
@click.option("--strip", type=FILE, help="Write steps from content to style as this image.")
@click.option("--contents", type=click.IntRange(min=1), help="At most this many content portraits in the grid.")
@click.option("--styles", type=click.IntRange(min=1), help="At most this many styles in the grid.")
def quality(
    portraits: Path,
    sheet: Path | None,
    control_sheet: Path | None,
    strip: Path | None,
    contents: int | None,
    styles: int | None,
    **settings: Any,
) -> None:
    """Measure the weights on a folder of unseen portraits.

    Measures the shipped weights, or those of a --run; prints one JSON line per figure.
    """
    from stages.evaluate import quality as stage

    chosen = given(sheet=sheet, control_sheet=control_sheet, strip=strip, contents=contents, styles=styles)
    finish(stage.run(context(settings, "quality"), portraits=portraits, **chosen))


@click.command()
@options.settings("profile", "cache", "run", "limit", "device")
@click.option("--table", type=click.IntRange(2, 4), required=True, help="The paper's table to make.")
@options.steps
def ablation(table: int, steps: int | None, **settings: Any) -> None:
    """Make one of the paper's ablation tables, 2, 3 or 4."""
    from stages.recipes import ablation as recipe

    finish(recipe.run(context(settings), table=table, **given(steps=steps)))


@click.command()
@options.settings("profile", "cache", "run", "limit", "device")
def tables(**settings: Any) -> None:
    """Write the paper's tables from what was measured, with figures.

    Table 1 is what `eval` measured, Tables 2 to 4 are what `ablation` did.
    """
    from stages.recipes import tables as recipe

    finish(recipe.run(context(settings)))


@click.command()
@options.settings("profile", "cache", "run", "device")
@click.option("--contents", type=click.IntRange(min=1), help="Portraits of CACHE [default: 3].")
@click.option("--styles", type=click.IntRange(min=1), help="Styles of CACHE [default: 3].")
@click.option("--output", "-o", type=FILE, help="The image to write [default: RUN/edits.png].")
def edits(contents: int | None, styles: int | None, output: Path | None, **settings: Any) -> None:
    """Draw portraits edited along semantic directions, with and without styles."""
    from stages.directions import sheet

    finish(sheet.run(context(settings), **given(contents=contents, styles=styles, output=output)))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=options.RUN)
@click.option("--output", "-o", type=FILE, default=Path("curves.html"), show_default=True, help="The page to write.")
@options.debug
def curves(runs: tuple[Path, ...], output: Path) -> None:
    """Draw the losses of several trainings into one page.

    RUNS are their folders: runs/NAME, or runs/NAME/train-inverter and the like.
    """
    from stages.train import page

    finish(str(page.compare(runs, output)))


@click.command()
@options.settings(*options.STAGES, "max-rejects")
def demo(**settings: Any) -> None:
    """Run every stage on the samples and draw a gallery."""
    from stages.recipes import demo as recipe

    finish(recipe.run(context(settings, "demo")))


@click.command()
@options.settings("profile", "cache", "run", "device")
@click.argument("contents", nargs=-1, type=PLACE)
@click.option("--content", "content", type=PLACE, multiple=True, help="The portrait to stylise, or a folder of them.")
@click.option(
    "--style",
    type=PLACE,
    multiple=True,
    help="The image whose style it takes, or a folder: each image in turn. Several are mixed. Not needed if all three "
    "regions have one.",
)
@click.option("--weight", type=click.FloatRange(0, min_open=True), multiple=True, help="The share of each --style.")
@click.option("--mix", type=click.Choice(["mean", "robust"]), help="robust: less of a --style unlike the others.")
@click.option(
    "--output", "-o", type=PLACE, required=True, help="The image to write; a folder for several portraits or styles."
)
@click.option("--strength", type=click.FloatRange(0, 1), help="0: the portrait as it is; 1: the full style.")
@click.option("--hair", type=FILE, help="Another style image for the hair.")
@click.option(
    "--face",
    "faces",
    multiple=True,
    metavar="FILE|N",
    help="Another style image for the face; or a number: which of several faces of the portrait, from the left.",
)
@click.option("--background", type=FILE, help="Another style image for the background.")
@options.no_face
@click.option(
    "--refine",
    type=click.IntRange(min=0),
    help="Steps of refinement for this portrait and style; 0 for none [default: 10].",
)
@click.option("--age", type=STEPS, help="Steps towards older (or below 0, younger); 2 is rare among generated faces.")
@click.option("--smile", type=STEPS, help="Steps towards smiling.")
@click.option("--pose", type=STEPS, help="Steps by which the face turns to the picture's left.")
@click.option(
    "--size", type=int, help="Pixels of a side: the profile's [default], or the generator's own, such as 1024."
)
@click.option("--recipe", type=FILE, help="Make it as this .json file, or a PNG made by this command, says.")
@click.option("--no-recipe", is_flag=True, help="Do not write into a PNG how it was made.")
def stylize(
    contents: tuple[Path, ...],
    content: tuple[Path, ...],
    faces: tuple[str, ...],
    no_recipe: bool,
    output: Path,
    **settings: Any,
) -> None:
    """Stylise portraits by images, portraits or not.

    CONTENTS are portraits as well; folders and archives of them are taken whole.
    """
    with quick_imports():
        from stages.apply import stylize as stage

    if not contents and not content:
        raise click.MissingParameter(param_hint="--content", param_type="option")
    images, numbers = [Path(x) for x in faces if not x.isdecimal()], [int(x) for x in faces if x.isdecimal()]
    if len(images) > 1 or len(numbers) > 1:
        raise click.BadParameter("expected one image, or one number, or one of each", param_hint="--face")
    if numbers == [0]:
        raise click.BadParameter("faces are counted from 1", param_hint="--face")
    face, which = (next(iter(values), None) for values in (images, numbers))
    names = ("style", "weight", "mix", "strength", "hair", "background", "refine", "no_face", "size", "recipe")
    edits = given(**{name: settings.pop(name) for name in ("age", "smile", "pose")})
    chosen = {name: settings.pop(name) for name in names} | {"edits": edits or None}
    chosen = {name: value for name, value in chosen.items() if value not in (None, ())}
    if no_recipe:
        chosen["with_recipe"] = False
    finish(
        stage.run(
            context(settings), content=[*content, *contents], output=output, **chosen, **given(face=face, which=which)
        )
    )


@click.command()
@options.settings("profile", "cache", "run", "device")
@click.argument("more", nargs=-1, type=PLACE, metavar="[STYLES]...")
@click.option("--content", type=FILE, required=True, help="The portrait that walks.")
@click.option("--style", "--styles", "styles", type=PLACE, multiple=True, required=True, help="Each style on the way.")
@click.option("--frames", type=click.IntRange(min=2), help="Pictures of the walk [default: 48].")
@click.option("--refine", type=click.IntRange(min=0), help="Steps of refinement at each style [default: 0].")
@click.option(
    "--output", "-o", type=PLACE, required=True, help="A strip .png, a film .webm or .gif, or a folder of pictures."
)
def interpolate(
    more: tuple[Path, ...],
    content: Path,
    styles: tuple[Path, ...],
    frames: int | None,
    refine: int | None,
    output: Path,
    **settings: Any,
) -> None:
    """Walk a portrait from style to style: --styles A B C, or --style for each.

    With one style it walks from the portrait's own. Frames lie at equal steps of what is seen (LPIPS).
    """
    with quick_imports():
        from stages.apply import stylize as stage

    chosen = given(frames=frames, refine=refine)
    finish(stage.interpolate(context(settings), content=content, styles=[*styles, *more], output=output, **chosen))


@click.command()
@options.settings("profile", "cache", "run", "device")
@click.option("--style", type=PLACE, multiple=True, help="A folder or an archive of styles besides the paintings.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one [default: 7717, or a free one].")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve on.")
@click.option("--i-know", "exposed", is_flag=True, help="Needed with --host: others may then use this studio.")
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser [default].")
@click.option("--keep", is_flag=True, help="Keep portraits that were read, in the cache folder.")
def studio(style: tuple[Path, ...], port: int | None, **settings: Any) -> None:
    """Open the studio, a page in the browser, on this machine.

    Drop portraits, try styles by region, take pictures and their recipes away. Ctrl+C ends it.
    """
    from stages.studio import serve

    chosen = {name: settings.pop(name) for name in ("host", "exposed", "show", "keep")}
    finish(serve.run(context(settings), styles=style, port=port, **chosen))


EVALUATE = (evaluate, quality, ablation, tables, edits, curves)
APPLY = (demo, stylize, interpolate, studio)
