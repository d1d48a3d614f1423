"""The commands that find styles."""

from pathlib import Path
from typing import Any

import click

from stages.cli import options
from stages.cli.options import FILE, context, finish, given

region = click.option(
    "--region", type=click.Choice(["whole", "hair", "face", "background"]), default="whole", show_default=True
)
codes_in = click.option(
    "--in", "file", type=FILE, help="Only the styles of this aladin.h5 [default: the paintings and CACHE/style]."
)


@click.command()
@options.settings("profile", "cache", "device")
@click.option("--like", default="", metavar="FILE|KEY", help="An image, or the key of a style.")
@region
@click.option("-k", "count", type=click.IntRange(min=1), default=12, show_default=True, help="Styles to show.")
@click.option("--text", default="", help="Only styles with all of these words in their name.")
@click.option("--duplicates", is_flag=True, help="Show near duplicates, and the styles least like any other.")
@codes_in
@click.option("--html", type=FILE, help="Write a page with pictures.")
@options.as_json
def search(
    like: str,
    region: str,
    count: int,
    text: str,
    duplicates: bool,
    file: Path | None,
    html: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find styles that are like an image, by the cosine of their codes.

    Searches the paintings that ship with the program and the styles of CACHE.
    """
    from stages.styles import command

    if duplicates and (like or text):
        raise click.UsageError("--duplicates compares all styles; it goes with neither --like nor --text")
    chosen = {"duplicates": duplicates, "as_json": as_json} | given(file=file, html=html)
    finish(command.run(context(settings), like=like, region=region, k=count, text=text, **chosen))


@click.command()
@options.settings("profile", "cache", "device")
@click.argument("action", type=click.Choice(["map", "codes"]))
@region
@codes_in
@click.option("--output", "-o", type=FILE, help="map: a .png or .json; codes: default in weights/portable.")
@click.option("--method", type=click.Choice(["pca", "tsne"]), help="map: t-SNE takes the extra `map` [default: pca].")
def styles(
    action: str, region: str, file: Path | None, output: Path | None, method: str | None, **settings: Any
) -> None:
    """Draw the styles on a plane, or compute the codes of the paintings.

    map: a picture of all styles, or their places as JSON. codes: what ships with the program, for a new encoder.
    """
    from stages.styles import command, library

    if action == "codes" and (file or method or region != "whole"):
        raise click.UsageError("codes are computed of all paintings; --in, --method and --region are for the map")
    if action == "codes":
        finish(library.compute(context(settings), **given(output=output)))
    elif output is None:
        raise click.UsageError("map: name a file that ends in .png or .json with --output")
    else:
        finish(command.write_map(context(settings), output, region, **given(file=file, method=method)))


COMMANDS = (search, styles)
