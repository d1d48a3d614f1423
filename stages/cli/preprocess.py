"""The commands that fill the caches, in the order data flows. A GPU is looked for only when there is work."""

from typing import Any

import click

from stages.cli import options
from stages.cli.options import context, finish

ROWS = ("profile", "cache", "limit", "max-rejects", "retry-rejected", "engine", "device")


@click.command()
@options.settings("profile", "cache", "device")
def samples(**settings: Any) -> None:
    """Make sample images: generated faces and free paintings."""
    from stages.preprocess import samples as stage

    finish(stage.run(context(settings, resolve=False)))


@click.command()
@options.settings(*options.STAGES, "max-rejects")
@options.no_face
def align(no_face: str | None, **settings: Any) -> None:
    """Find the faces and cut aligned squares."""
    from stages.preprocess import align as stage

    finish(stage.run(context(settings, resolve=False), **options.given(no_face=no_face)))


@click.command()
@options.settings(*ROWS)
def latents(**settings: Any) -> None:
    """Invert the aligned images into the generator's W+ space."""
    from stages.preprocess import latents as stage

    finish(stage.run(context(settings, resolve=False)))


@click.command()
@options.settings(*ROWS)
def masks(**settings: Any) -> None:
    """Segment the aligned images into hair, face, background."""
    from stages.preprocess import masks as stage

    finish(stage.run(context(settings, resolve=False)))


@click.command("aladin-codes")
@options.settings(*ROWS)
def aladin_codes(**settings: Any) -> None:
    """Embed the style of each region."""
    from stages.preprocess import aladin_codes as stage

    finish(stage.run(context(settings, resolve=False)))


@click.command()
@options.settings("profile", "cache", "limit")
def shards(**settings: Any) -> None:
    """Pack the caches into webdataset shards."""
    from stages.preprocess import shards as stage

    finish(stage.run(context(settings, resolve=False)))


COMMANDS = (samples, align, latents, masks, aladin_codes, shards)
