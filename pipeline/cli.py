"""The command line: one command a stage, over plain functions that are imported only when they are called."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.commands import FILE, FOLDER, LAZY, OPTIONS, PLACE, STAGES, TRAININGS
from pipeline.errors import Fault, printable

DEBUG = "hypernst.debug"


class _Group(click.Group):
    """Tells a failure in one line and its exit status; the traceback only with --debug."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta.get(DEBUG):
                raise
            if isinstance(error, Fault):
                click.echo(f"hypernst: {error}", err=True)
                ctx.exit(error.status)
            text = printable(" ".join(str(error).split()))
            way_out = "run it again with --debug for a traceback"
            click.echo(f"hypernst: {type(error).__name__}: {text} ({way_out})", err=True)
            ctx.exit(1)


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


_DEBUG_OPTION = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_debug, help="Show tracebacks."
)
_FOLDERS = (
    click.option("--content", "content_dir", type=PLACE, help="Content portraits [default: CACHE/samples/content]."),
    click.option("--style", "style_dir", type=PLACE, help="Style pictures [default: CACHE/samples/style]."),
)
_SETTINGS = (
    click.option("--profile", default="portable", show_default=True, help="A name in profiles/, or a .toml file."),
    click.option("--cache", type=FOLDER, default=Path("cache"), show_default=True, help="Where artefacts are kept."),
    click.option("--run", type=FOLDER, help="Folder of checkpoints, logs and results [default: runs/default]."),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first so many pictures of each collection."),
    click.option("--max-rejects", type=click.IntRange(min=0), help="Exit with 3 when a stage rejects more than this."),
    click.option("--retry-rejected", is_flag=True, help="Try remembered rejects again."),
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU if any."),
    _DEBUG_OPTION,
)


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_FOLDERS):
        command = option(command)
    return _settings(command)


def _context(options: dict[str, Any], run: str = "default", resolve: bool = True) -> Any:
    """Take the common options out of `options` and make the Context of them; `resolve` looks for the GPU."""
    from pipeline import device, profile
    from pipeline.context import Context

    cache = options.pop("cache")
    name = options.pop("device")
    return Context(
        profile=profile.load(options.pop("profile")),
        cache=cache,
        content=options.pop("content_dir", None) or cache / "samples" / "content",
        style=options.pop("style_dir", None) or cache / "samples" / "style",
        run=options.pop("run") or Path("runs") / run,
        limit=options.pop("limit"),
        max_rejects=options.pop("max_rejects"),
        retry_rejected=options.pop("retry_rejected"),
        engine=options.pop("engine"),
        device=device.resolve(name) if resolve else device.check(name),
        debug=bool(click.get_current_context().meta.get(DEBUG)),
    )


def _finish(result: int | str | None) -> None:
    """Print a text result, or leave with an exit status."""
    if isinstance(result, str):
        click.echo(printable(result))
    else:
        click.get_current_context().exit(result or 0)


def _run(module: str, options: dict[str, Any], run: str = "default") -> None:
    """Call `stages.<module>.run` with those options that were given."""
    ctx = _context(options, run, resolve=module not in LAZY)
    stage = importlib.import_module(f"stages.{module}")
    _finish(stage.run(ctx, **{name: value for name, value in options.items() if value is not None}))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="hypernst")
@_DEBUG_OPTION
def cli() -> None:
    """Stylise portraits with a hypernetwork, region by region.

    Exit status: 0 done; 1 a stage failed; 2 wrong use or configuration; 3 more rejects than --max-rejects allows.
    """


def _add(name: str, module: str, options: tuple[str, ...], text: str, shared: Callable[..., Any]) -> None:
    def command(**given: Any) -> None:
        _run(module, given, "demo" if name == "demo" else "default")

    command = shared(command)
    for option in reversed(options):
        command = OPTIONS[option](command)
    cli.command(name, help=text)(command)


for _entry in STAGES:
    _add(*_entry, shared=_common)


@cli.command()
@click.option("--content", type=FILE, required=True, help="The portrait to stylise.")
@click.option("--style", type=FILE, help="The picture whose style it takes; not needed if all three regions have one.")
@click.option("--output", "-o", type=FILE, required=True, help="The picture to write.")
@click.option("--strength", type=click.FloatRange(0, 1), help="0 the portrait as it is, 1 the full style.")
@click.option("--hair", type=FILE, help="Another style picture for the hair.")
@click.option("--face", type=FILE, help="Another style picture for the face.")
@click.option("--background", type=FILE, help="Another style picture for the background.")
@_settings
def stylize(**options: Any) -> None:
    """Stylise one portrait by one picture, portrait or not."""
    _run("stylize", options)


@cli.command()
@click.argument("portraits", type=FOLDER)
@click.option("--sheet", type=FILE, help="Draw the measured grid into this picture.")
@click.option("--control-sheet", type=FILE, help="Draw hair and face in two styles into this picture.")
@click.option("--strip", type=FILE, help="Draw walks from content to style into this picture.")
@click.option("--contents", type=click.IntRange(min=1), help="At most so many content portraits in the grid.")
@click.option("--styles", type=click.IntRange(min=1), help="At most so many styles in the grid.")
@_settings
def quality(**options: Any) -> None:
    """Measure the shipped weights, or those of a --run, on a folder of portraits; one JSON line a figure."""
    _run("quality", options, "quality")


@cli.command("inspect")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--key", help="Show this row.")
@click.option("--full", is_flag=True, help="Read everything for the ranges, not only evenly spread rows.")
@click.option("--html", type=FILE, help="Write a page with pictures of rows.")
@click.option("--png", type=FILE, help="Write a picture of rows.")
@_DEBUG_OPTION
def inspect_file(file: Path, **options: Any) -> None:
    """Say what is in a cache file, a part or shards: datasets, ranges, NaNs, provenance."""
    _finish(importlib.import_module("stages.inspect").run(file, **options))


@cli.command()
@click.option("--repair", is_flag=True, help="Compute just what is bad or missing again.")
@_common
def verify(repair: bool, **options: Any) -> None:
    """Check every cache file and shard against its checksums, and the caches against each other."""
    module = importlib.import_module("pipeline.verify")
    rebuild = importlib.import_module("stages.chain").rebuild if repair else None
    _finish(module.run(_context(options, resolve=False), repair=repair, rebuild=rebuild))


@cli.command()
@click.argument("stage", type=click.Choice(["align", "latents", "masks", "aladin-codes", "shards"]), required=False)
@click.option("--names", is_flag=True, help="Only the names of the stages that have something to do.")
@OPTIONS["no_face"]
@_common
def explain(stage: str | None, names: bool, no_face: str | None, **options: Any) -> None:
    """Say which input, parameter or weight would make STAGE (all of them) compute again; computes nothing."""
    module = importlib.import_module("stages.chain")
    ctx = module.align.with_no_face(_context(options, resolve=False), no_face)
    if names:
        _finish(" ".join(module.unfinished(ctx)))
    else:
        _finish(module.explain(stage, ctx) if stage else module.explain_all(ctx))


@cli.command()
@_settings
def doctor(**options: Any) -> None:
    """Report versions, and whether weights, disk, memory and GPU suffice for the profile."""
    from pipeline import doctor as module

    ctx = _context(options, resolve=False)
    need = importlib.import_module("stages.needs").memory(ctx)
    _finish(module.report(ctx, need.preprocessing, need.training))


@cli.command()
@click.argument("action", type=click.Choice(["list", "fetch", "check", "import"]), default="list")
@click.argument("names", nargs=-1)
@click.option("--as", "kept_as", help="import: the name in the list, or a path of your own, to keep FILE as.")
@click.option("--part", default="", help="import: the kind of network to take from a FILE that holds several.")
@click.option("--replace", is_flag=True, help="import: take FILE although another one was imported under that name.")
@_settings
def weights(action: str, names: tuple[str, ...], kept_as: str | None, part: str, replace: bool, **options: Any) -> None:
    """List the weights with their state and terms; fetch or check NAMES (all that the profile needs); import FILE."""
    from pipeline import imports
    from pipeline import weights as module

    profile = _context(options, resolve=False).profile
    if action == "list":
        return _finish(module.table())
    check = importlib.import_module("stages.weights_check").structure
    if action == "import":
        if len(names) != 1:
            raise Fault(f"weights import: {len(names)} files; expected one", 2)
        return _finish(str(imports.import_file(Path(names[0]), kept_as or "", check, replace=replace, kind=part)))
    failed = 0
    for name in names or module.needed(profile):
        try:
            done = imports.verify(name, check) if action == "check" else f"{name}: {imports.fetch_file(name, check)}"
            click.echo(printable(done))
        except Fault as fault:  # the others are told, too
            if len(names) == 1:
                raise
            click.echo(f"hypernst: {fault}", err=True)
            failed = max(failed, fault.status)
    _finish(failed)


for _entry in TRAININGS:
    _add(*_entry, shared=_settings)


def main() -> None:
    """Entry point of the console command `hypernst`."""
    cli(prog_name="hypernst")


if __name__ == "__main__":
    main()
