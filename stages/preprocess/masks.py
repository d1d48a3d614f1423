"""Region masks: which pixel of an aligned image is hair, face or background.

The face parser's raw label map has a cache of its own, so that another grouping of its labels does not run it again.
"""

from collections.abc import Sequence

import numpy as np

from models.parsing.labels import LABELS, grouping
from models.regions import MAP_SIZE, UNKNOWN
from pipeline import weights
from pipeline.caches.schema import Column, Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.runner.run import run_collections
from pipeline.runner.spec import Item, Reject, StageSpec, Worker
from stages.preprocess.producers import PRODUCERS


def parse_spec(ctx: Context) -> StageSpec:
    """The parse stage: the face parser's own labels. FaRL's warp needs points, so their detector is in the recipe."""
    section = ctx.profile.parser
    names = [section.weights] if section.weights else []
    detector = ctx.profile.align.detector
    if section.kind.startswith("farl-") and detector != "none":
        names.append(detector)
    return StageSpec(
        name="parse",
        output="parses",
        parents={"images": ("image",)},
        producers=PRODUCERS,
        columns={"parse": Column("u1", (MAP_SIZE, MAP_SIZE))},
        params={"kind": section.kind} | ({} if section.weights else {"seed": ctx.profile.seed}),
        weights={name: weights.sha256(name) for name in names},
        version=4,
        batch=8,
        open=open_parse_worker,
    )


def spec(ctx: Context) -> StageSpec:
    """The masks stage: region (the map to use), parse (the parser's labels) and each region's share of the image."""
    _regions(ctx)
    section = ctx.profile.parser
    return StageSpec(
        name="masks",
        output="masks",
        parents={"images": ("score",), "parses": ("parse",)},
        producers=PRODUCERS,
        columns={
            "region": Column("u1", (MAP_SIZE, MAP_SIZE)),
            "parse": Column("u1", (MAP_SIZE, MAP_SIZE)),
            "coverage": Column("f4", (3,)),
        },
        params={"kind": section.kind, "hair": sorted(section.hair), "face": sorted(section.face)},
        version=2,
        batch=64,
        open=open_worker,
    )


def run(ctx: Context) -> int:
    """Segment both collections."""
    stage = spec(ctx)  # first, so that a wrong grouping is reported before the network runs
    return max(run_collections(parse_spec(ctx), ctx), run_collections(stage, ctx))


def open_parse_worker(ctx: Context) -> Worker:
    """The worker that labels aligned images, one at a time: in another batch the last bits of logits may differ."""
    from stages.loaders.face_parser import open_parser

    label = open_parser(ctx)
    return lambda items: [{"parse": label(item["images.image"])} for item in items]


def open_worker(ctx: Context) -> Worker:
    """The worker that groups labels. In an image without a face every pixel's region is unknown (255)."""
    regions = _regions(ctx)

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:
            parse = item["parses.parse"]
            portrait = float(item["images.score"]) > 0
            region = regions[parse] if portrait else np.full_like(parse, UNKNOWN)
            share = np.bincount(region.ravel(), minlength=UNKNOWN + 1)[:3] / region.size
            rows.append({"region": region, "parse": parse, "coverage": share})
        return rows

    return work


def _regions(ctx: Context) -> np.ndarray:
    """The region of each label of the face parser. Raises: UserError(2) when the kind or a label does not exist."""
    section, name = ctx.profile.parser, ctx.profile.name
    if section.kind not in LABELS:
        raise UserError(f"profile {name}: parser.kind is {section.kind!r}; expected one of {', '.join(LABELS)}", 2)
    try:
        return grouping(LABELS[section.kind], section.hair, section.face)
    except ValueError as error:
        wrong = f"parser.hair and parser.face group {section.kind}'s labels, but {error}"
        raise UserError(f"profile {name}: {wrong}", 2) from error
