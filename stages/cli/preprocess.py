"""The commands that fill the caches, in the order data flows. A GPU is looked for only when there is work."""

from typing import Any

import click

from stages.cli import options
from stages.cli.options import context, finish


@click.command()
@options.common
def samples(**common: Any) -> None:
    """Make sample images: generated faces and free paintings."""
    from stages.preprocess import samples as stage

    finish(stage.run(context(common, resolve=False)))


@click.command()
@options.common
@options.no_face
def align(no_face: str | None, **common: Any) -> None:
    """Find the faces and cut aligned squares."""
    from stages.preprocess import align as stage

    finish(stage.run(context(common, resolve=False), **options.given(no_face=no_face)))


@click.command()
@options.common
def latents(**common: Any) -> None:
    """Invert the aligned images into the generator's W+ space."""
    from stages.preprocess import latents as stage

    finish(stage.run(context(common, resolve=False)))


@click.command()
@options.common
def masks(**common: Any) -> None:
    """Segment the aligned images into hair, face, background."""
    from stages.preprocess import masks as stage

    finish(stage.run(context(common, resolve=False)))


@click.command("aladin-codes")
@options.common
def aladin_codes(**common: Any) -> None:
    """Embed the style of each region."""
    from stages.preprocess import aladin_codes as stage

    finish(stage.run(context(common, resolve=False)))


@click.command()
@options.common
def shards(**common: Any) -> None:
    """Pack the caches into webdataset shards."""
    from stages.preprocess import shards as stage

    finish(stage.run(context(common, resolve=False)))


COMMANDS = (samples, align, latents, masks, aladin_codes, shards)
