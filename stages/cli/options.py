"""Options that commands share, the context made from them, and what a command does with its result."""

import gc
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.errors import printable

if TYPE_CHECKING:
    from pipeline.context import Context


class _Path(click.Path):
    """A path that can be one: not empty, as from a variable that is not set, not "/", and allowed by the system."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty.", param, ctx)
        name = printable(repr(os.fspath(value)))
        if os.path.realpath(value) == os.path.sep:
            self.fail(f"{name} is the whole file system; name a folder in it.", param, ctx)
        try:
            mode = Path(value).stat().st_mode
            if not (self.file_okay or stat.S_ISDIR(mode)):
                self.fail(f"{name} is no folder.", param, ctx)
        except FileNotFoundError:
            pass  # it may be for us to make
        except OSError as error:
            self.fail(f"{name}: {error.strerror}.", param, ctx)
        return super().convert(value, param, ctx)


class _Run(_Path):
    """A folder of a run: safetensors opens its checkpoints only by a name in UTF-8."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value).isascii() and os.fsencode(value).decode(errors="ignore") != os.fspath(value):
            self.fail(f"{printable(repr(value))} is not UTF-8; rename it.", param, ctx)
        return super().convert(value, param, ctx)


FILE = _Path(path_type=Path, dir_okay=False)
FOLDER = _Path(path_type=Path, file_okay=False)
RUN = _Run(path_type=Path, file_okay=False)
PLACE = _Path(path_type=Path)  # a folder or an archive
DEBUG = "hypernst.debug"

Command = Callable[..., Any]


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


debug = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_debug, help="Show tracebacks."
)
_SETTINGS: dict[str, dict[str, Any]] = {
    "content": {"type": PLACE, "help": "Content portraits [default: CACHE/samples/content]."},
    "style": {"type": PLACE, "help": "Style images [default: CACHE/samples/style]."},
    "profile": {"default": "portable", "show_default": True, "help": "A name in profiles/, or a .toml file."},
    "cache": {"type": FOLDER, "default": Path("cache"), "show_default": True, "help": "Where artefacts are kept."},
    "run": {"type": RUN, "help": "Folder of checkpoints, logs and results [default: runs/default]."},
    "limit": {"type": click.IntRange(min=1), "help": "Use only the first N images of each collection."},
    "max-rejects": {"type": click.IntRange(min=0), "help": "Exit with 3 when a stage rejects more than this."},
    "retry-rejected": {"is_flag": True, "help": "Retry inputs that were rejected before."},
    "engine": {"type": click.Choice(["local", "ray"]), "default": "local", "show_default": True},
    "device": {"default": "auto", "show_default": True, "help": "cpu, cuda, cuda:1, mps; auto: a GPU if there is one."},
}
# What the commands that find, compute or check rows of all stages take.
STAGES = ("content", "style", "profile", "cache", "run", "limit", "retry-rejected", "engine", "device")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
no_face = click.option("--no-face", type=click.Choice(["reject", "keep"]), help="What to do with faceless content.")
data = click.option("--data", type=FOLDER, required=True, help="Folder of training images.")
labelled = click.option(
    "--labelled", type=FOLDER, help="Folder of NAME.jpg with NAME.png region maps to learn from too."
)
teacher_share = click.option(
    "--teacher-share", type=click.FloatRange(0, 1), help="Share of the teacher's weights in the result [default: 0]."
)
check = click.option("--check", type=FOLDER, help="Folder to measure the result on; never trained on.")
steps = click.option("--steps", type=click.IntRange(min=1), help="Stop after this many steps.")
minutes = click.option("--minutes", type=click.FloatRange(min=0), help="Stop after this many minutes.")
batch = click.option("--batch", type=click.IntRange(min=1), help="Images per step, over all processes [default: 8].")
faces = click.option("--images", type=click.IntRange(min=1), help="Generate this many faces to fit on.")
shipped = click.option("--shipped/--from-scratch", default=None, help="Start from the shipped weights [default].")
output = click.option("--output", "-o", type=FILE, help="The file to write [default: in weights/portable, RUN].")


def settings(*names: str) -> Callable[[Command], Command]:
    """Give a command those of the settings that it uses, and --debug; `context` makes its context of them.

    The others may be given as well, so that one set of options does for every stage; they are not in its help, and it
    says that it does not use them.
    """

    def give(command: Command) -> Command:
        own = {option for param in getattr(command, "__click_params__", ()) for option in param.opts}
        command = debug(command)
        for name, about in reversed(_SETTINGS.items()):
            if f"--{name}" in own:
                continue
            unused: dict[str, Any] = {} if name in names else {"hidden": True, "callback": _unused}
            dest = {"content": "content_dir", "style": "style_dir"}.get(name, name.replace("-", "_"))
            command = click.option(f"--{name}", dest, **about, **unused)(command)
        return command

    return give


def _unused(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        click.echo(f"hypernst {ctx.info_name}: {parameter.opts[0]} is not used here", err=True)
    return value


def context(options: dict[str, Any], run: str = "default", *, resolve: bool = True) -> "Context":
    """The context made from the options of `settings`; `resolve` looks for the GPU, which imports torch."""
    from pipeline import device, profile
    from pipeline.context import Context

    cache = options.get("cache", Path("cache"))
    samples, chosen = cache / "samples", options.get("device", "auto")
    return Context(
        profile=profile.load(options["profile"]),
        cache=cache,
        content=options.get("content_dir") or samples / "content",
        style=options.get("style_dir") or samples / "style",
        run=options.get("run") or Path("runs") / run,
        limit=options.get("limit"),
        max_rejects=options.get("max_rejects"),
        retry_rejected=options.get("retry_rejected", False),
        engine=options.get("engine", "local"),
        shards_at=options.get("shards") or "",
        device=device.resolve(chosen) if resolve else device.check(chosen),
    )


def given(**options: Any) -> dict[str, Any]:
    """The options that the user wrote. The function that is called has the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries without looking for garbage among the 100,000 objects that stay.

    Once a process: a later command in it would freeze, and never free, what the earlier ones left in cycles.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def show(facts: Any, report: Callable[[Any], str], as_json: bool) -> None:
    """Print what a command found: for people by `report`, or with `as_json` as JSON in ASCII."""
    import json

    finish(json.dumps(facts, indent=1, default=str) if as_json else report(facts))


def finish(result: int | str | None) -> None:
    """Print a text, or exit with a status."""
    if isinstance(result, str):
        click.echo(printable(result))
    else:
        click.get_current_context().exit(result or 0)
