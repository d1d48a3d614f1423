"""Runs a stage over a collection: resumes by key, remembers rejects, writes caches that survive being killed."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.context import COLLECTIONS, Context
from pipeline.spec import Column, Item, Reject, Row, StageSpec, Worker

__all__ = ["Column", "Item", "Reject", "Row", "StageSpec", "Summary", "Worker", "run_collections", "run_stage"]


@dataclass(frozen=True)
class Summary:
    """What a stage did to a collection; `inputs == cached + rejected` once it is done, `computed` of them just now."""

    stage: str
    collection: str
    inputs: int
    cached: int
    rejected: int
    computed: int

    def status(self, max_rejects: int | None) -> int:
        """Exit status: 3 when more were rejected than allowed, else 0."""
        return 3 if max_rejects is not None and self.rejected > max_rejects else 0


def run_stage(stage: StageSpec, collection: str, ctx: Context) -> Summary:
    """Bring cache/<collection>/<stage.output>.h5 up to date, computing only what is missing or stale.

    Raises: Fault when a parent cache is missing (2), the cache is in use by another run (1), or the worker fails (1).
    """
    raise NotImplementedError


def run_collections(stage: StageSpec, ctx: Context, collections: Sequence[str] = COLLECTIONS) -> int:
    """`run_stage` for each collection; the worst exit status."""
    return max(run_stage(stage, name, ctx).status(ctx.max_rejects) for name in collections)
