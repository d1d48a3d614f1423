"""The commands that look after caches, weights and the machine; none of them needs a GPU."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stages.cli import options
from stages.cli.options import FILE, context, finish, given, show

if TYPE_CHECKING:
    from pipeline.profile import NoFace


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--key", help="Show this row.")
@click.option("--full", is_flag=True, help="Read all rows for the ranges, not only evenly spread ones.")
@click.option("--html", type=FILE, help="Write a page with images of rows.")
@click.option("--png", type=FILE, help="Write an image of rows.")
@options.as_json
@options.debug
def inspect(file: Path, key: str | None, full: bool, html: Path | None, png: Path | None, as_json: bool) -> None:
    """Say what is in a cache file, a part, shards or weights.

    Shows datasets, ranges, NaNs and provenance.
    """
    from stages.tools import inspect as tool

    if as_json and (html or png):
        raise click.UsageError("--json goes with neither --html nor --png; run it once for each")
    if as_json:
        show(tool.facts(file, key=key, full=full), str, as_json)
    else:
        finish(tool.run(file, full=full, **given(key=key, html=html, png=png)))


@click.command()
@options.settings(*options.STAGES)
@click.option("--repair", is_flag=True, help="Recompute only what is damaged or missing.")
@click.option("--sources", is_flag=True, help="Read all of the user's images, also those that look unchanged.")
@click.option("--all", "everything", is_flag=True, help="Read all files, also those found sound that look unchanged.")
@options.no_face
@options.as_json
def verify(
    repair: bool, sources: bool, everything: bool, no_face: "NoFace | None", as_json: bool, **settings: Any
) -> None:
    """Check every cache file and shard against its checksums.

    Caches are also checked against each other, and against the user's images.
    """
    from stages.preprocess import align
    from stages.tools import verify as tool

    ctx = align.with_no_face(context(settings, resolve=False), no_face)
    finish(tool.run(ctx, repair=repair, sources=sources, everything=everything, as_json=as_json))


@click.command()
@options.settings("content", "style", "profile", "cache", "run", "limit", "retry-rejected")
@click.argument("stage", type=click.Choice(["align", "latents", "masks", "aladin-codes", "shards"]), required=False)
@click.option("--names", is_flag=True, help="Print only the names of the stages that have something to compute.")
@options.no_face
@options.as_json
def explain(stage: str | None, names: bool, no_face: "NoFace | None", as_json: bool, **settings: Any) -> None:
    """Say what STAGE (or every stage) would recompute, and why.

    Names the input, parameter or weight that changed; computes nothing.
    """
    from stages.preprocess import align, chain
    from stages.tools import explain as tool

    ctx = align.with_no_face(context(settings, resolve=False), no_face)
    if names:
        show(chain.unfinished(ctx), " ".join, as_json)
    else:
        show(tool.explain(stage, ctx), tool.report, as_json)


@click.command()
@options.settings("profile", "cache", "run")
@options.as_json
def doctor(as_json: bool, **settings: Any) -> None:
    """Report versions, weights, disk, memory and GPU.

    Says whether they suffice for the profile.
    """
    from stages.tools import doctor as tool

    show(tool.facts(context(settings, resolve=False)), tool.report, as_json)


@click.command()
@options.settings("profile")
@click.argument("action", type=click.Choice(["list", "fetch", "check", "import"]), default="list")
@click.argument("names", nargs=-1)
@click.option("--as", "kept_as", help="import: the name in the list, or a path of your own, to keep FILE as.")
@click.option("--part", default="", help="import: the kind of network to take from a FILE that holds several.")
@click.option("--replace", is_flag=True, help="import: take FILE although another one was imported under that name.")
@click.option("--json", "as_json", is_flag=True, help="list: print JSON, for programs.")
def weights(
    action: str, names: tuple[str, ...], kept_as: str | None, part: str, replace: bool, as_json: bool, **settings: Any
) -> None:
    """List, fetch, check or import weights.

    list: the state and terms of NAMES, or of all; fetch or check NAMES (all that the profile needs); import FILE.
    """
    from pipeline import weights as store
    from stages.tools import weights as tool

    if action != "import" and (kept_as or part or replace):
        raise click.UsageError("--as, --part and --replace go with import")
    if action != "list" and as_json:
        raise click.UsageError("--json goes with list")
    profile = context(settings, resolve=False).profile
    if action == "import":
        finish(tool.take_in(names, kept_as or "", replace=replace, kind=part))
    elif action == "list":
        wanted = {store.find(name).name for name in names} or set(store.REGISTRY)
        show([entry for entry in store.entries() if entry["name"] in wanted], tool.table, as_json)
    else:
        finish(tool.each(action, names, profile))


COMMANDS = (inspect, verify, explain, doctor, weights)
