"""The commands that train: the hypernetwork, and the networks that it stands on. Run one again to resume it."""

from pathlib import Path
from typing import Any

import click

from stages.cli import options
from stages.cli.options import FILE, context, finish, given


@click.command()
@options.settings("profile", "cache", "run", "device")
@options.steps
@options.minutes
@options.shipped
@click.option(
    "--phase",
    type=click.Choice(("reconstruct", "stylize")),
    help="Phase that a new run starts in; reconstruction has train.reconstruction_steps steps.",
)
@click.option("--export", type=FILE, help="Write the averaged weights in fp16.")
@click.option("--shards", help="Folder or URL of the shards: http(s)://, s3:// and others [default: CACHE/shards].")
@click.option("--deterministic", is_flag=True, help="Use the same bits on a GPU each time where it can; slower.")
def train(
    steps: int | None,
    minutes: float | None,
    shipped: bool | None,
    phase: str | None,
    export: Path | None,
    shards: str | None,
    deterministic: bool,
    **settings: Any,
) -> None:
    """Train the hypernetwork; run it again to resume."""
    from stages.train import run

    chosen = given(steps=steps, minutes=minutes, shipped=shipped, phase=phase, export=export)
    finish(run.run(context({**settings, "shards": shards}), **chosen, deterministic=deterministic))


@click.command("fit-head")
@options.settings("profile", "run", "device")
@options.faces
@options.steps
@options.minutes
@options.shipped
@options.output
def fit_head(
    images: int | None,
    steps: int | None,
    minutes: float | None,
    shipped: bool | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Fit the generator's 256 px output head."""
    from stages.pretrain import output_head

    finish(
        output_head.run(
            context(settings), **given(images=images, steps=steps, minutes=minutes, shipped=shipped, output=output)
        )
    )


@click.command("finetune-generator")
@options.settings("profile", "run", "device")
@options.data
@options.steps
@options.minutes
@options.batch
@click.option("--discriminator", help="Weights of a published discriminator to start from: a name, or a path.")
@click.option(
    "--stay",
    type=click.FloatRange(min=0),
    help="Weight of the distance to the original generator's image [default: 0].",
)
@click.option(
    "--mapping",
    is_flag=True,
    default=None,
    help="Train the mapping network as well; the encoder then has to be retrained.",
)
@options.output
def finetune_generator(
    data: Path,
    steps: int | None,
    minutes: float | None,
    batch: int | None,
    discriminator: str | None,
    stay: float | None,
    mapping: bool | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Fine-tune the generator on DATA/content and DATA/style."""
    from stages.pretrain import generator

    finish(
        generator.run(
            context(settings),
            data=data,
            **given(
                steps=steps,
                minutes=minutes,
                batch=batch,
                discriminator=discriminator,
                stay=stay,
                mapping=mapping,
                output=output,
            ),
        )
    )


@click.command("train-inverter")
@options.settings("profile", "run", "device")
@options.data
@options.steps
@options.minutes
@options.batch
@click.option(
    "--unlock",
    type=click.IntRange(min=1),
    help="e4e: steps between unlocking W+ layers [default: 2000].",
)
@options.faces
@options.output
def train_inverter(
    data: Path,
    steps: int | None,
    minutes: float | None,
    batch: int | None,
    unlock: int | None,
    images: int | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Train the encoder from a portrait to its W+ latent."""
    from stages.pretrain import inverter

    finish(
        inverter.run(
            context(settings),
            data=data,
            **given(steps=steps, minutes=minutes, batch=batch, unlock=unlock, images=images, output=output),
        )
    )


@click.command("train-parser")
@options.settings("profile", "run", "device")
@options.data
@options.steps
@options.minutes
@options.shipped
@options.labelled
@options.teacher_share
@options.check
@options.output
def train_parser(
    data: Path,
    steps: int | None,
    minutes: float | None,
    shipped: bool | None,
    labelled: Path | None,
    teacher_share: float | None,
    check: Path | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Distil the portrait parser from its photo teacher."""
    from stages.pretrain import parser

    finish(
        parser.run(
            context(settings),
            data=data,
            **given(
                steps=steps,
                minutes=minutes,
                shipped=shipped,
                labelled=labelled,
                teacher_share=teacher_share,
                check=check,
                output=output,
            ),
        )
    )


@click.command("train-aladin")
@options.settings("profile", "run", "limit", "device")
@options.data
@options.steps
@options.minutes
@options.check
@options.output
def train_aladin(
    data: Path,
    steps: int | None,
    minutes: float | None,
    check: Path | None,
    output: Path | None,
    **settings: Any,
) -> None:
    """Train the style code's head on DATA/style's groups.

    Each sub-folder of DATA/style is a style group. A work outside of them is a group of its own.
    """
    from stages.pretrain import aladin

    finish(aladin.run(context(settings), data=data, **given(steps=steps, minutes=minutes, check=check, output=output)))


@click.command("train-baseline")
@options.settings("profile", "cache", "run", "device")
@click.argument("method", type=click.Choice(("sanet", "pama", "contraast", "artflow", "sae")))
@options.steps
@options.minutes
def train_baseline(method: str, steps: int | None, minutes: float | None, **settings: Any) -> None:
    """Train a METHOD to compare with on the shards; `eval` then takes its weights."""
    from stages.baselines import run

    finish(run.run(context(settings), method=method, **given(steps=steps, minutes=minutes)))


@click.command()
@options.settings("profile", "cache", "run", "limit", "device")
@options.faces
@click.option("--measure", is_flag=True, help="Measure the profile's directions on CACHE's content portraits instead.")
@options.output
def directions(images: int | None, measure: bool, output: Path | None, **settings: Any) -> None:
    """Find semantic directions: age, smile, pose and others.

    Generated faces are scored by published networks (3000, or --images), and boundaries fitted between the extremes.
    """
    from stages.directions import measure as measuring
    from stages.directions import train as training

    if measure and (images or output):
        raise click.UsageError("--measure trains nothing and writes no file; leave out --images and --output")
    ctx = context(settings)
    finish(measuring.run(ctx) if measure else training.run(ctx, **given(images=images, output=output)))


COMMANDS = (train, train_baseline, fit_head, finetune_generator, train_inverter, train_parser, train_aladin, directions)
