"""Whether the user's files are still those that a collection's images were aligned from."""

from collections.abc import Iterator

from pipeline.caches.failures import DamagedError
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.runner.staleness import read_sources
from stages.tools.verify_checks import Problem


def check_sources(ctx: Context, collection: str, read: bool) -> Iterator[Problem]:
    """Files that differ from what images.h5 was made from. It says how many were not read.

    Those that look changed are read, with `read` all of them.
    """
    path, place = ctx.file(collection, "images"), ctx.source(collection)
    if not path.exists():
        return
    try:
        with Cache(path) as cache:
            entries = cache.entries()
        inputs = read_sources(collection, ctx, set(entries), trust=not read)
    except DamagedError:
        return  # told already
    except UserError as fault:
        say(f"{collection}: the user's images were not compared with the cache ({fault})")
        return
    there = entries.keys() & inputs.input_digests.keys()
    if changed := sorted(key for key in there if inputs.input_digests[key] != entries[key].inputs):
        yield Problem(path, f"was made from other files than {place} holds; run `hypernst align`", changed, fatal=False)
    unread = len(there) - len(inputs.fingerprints.news)
    if unread > 0 and not read:
        say(
            f"{place}: {unread} files are taken to be unchanged, as their sizes, times and inodes are; "
            "`hypernst verify --sources` reads them"
        )
