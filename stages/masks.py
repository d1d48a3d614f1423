"""Region masks: which pixel of an aligned picture is hair, face or background."""

from collections.abc import Sequence

import numpy as np

from models.windows import UNKNOWN
from pipeline import weights
from pipeline.context import Context
from pipeline.runner import Column, Item, Reject, Row, StageSpec, Worker, run_collections

SIZE = 256


def spec(ctx: Context) -> StageSpec:
    """The masks stage: region (what to use), parse (the parser's own answer) and each region's share of the picture."""
    name = ctx.profile.parser.weights
    return StageSpec(
        name="masks",
        output="masks",
        parents={"images": ("image", "score")},
        columns={
            "region": Column("u1", (SIZE, SIZE)),
            "parse": Column("u1", (SIZE, SIZE)),
            "coverage": Column("f4", (3,)),
        },
        params=ctx.profile.section_dict("parser"),
        weights={name: weights.sha256(name)},
        version=1,
        batch=8,
        open=open_worker,
    )


def run(ctx: Context) -> int:
    """Segment both collections."""
    return run_collections(spec(ctx), ctx)


def open_worker(ctx: Context) -> Worker:
    """The worker that parses aligned pictures; in one without a face every pixel's region is unknown (255)."""
    from models.parser import PortraitParser
    from pipeline import pictures

    parser = PortraitParser.load(weights.tensors(ctx.profile.parser.weights)).to(ctx.device)

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        # one picture at a time: in a batch of another size the last bits of the logits may differ
        rows: list[Row | Reject] = []
        for item in items:
            image = pictures.to_tensor(pictures.decode(item["images.image"], SIZE)).to(ctx.device)
            parse = parser.parse(image)[0].cpu().numpy()
            portrait = float(item["images.score"]) > 0
            region = parse if portrait else np.full_like(parse, UNKNOWN)
            share = np.bincount(region.ravel(), minlength=UNKNOWN + 1)[:3] / region.size
            rows.append({"region": region, "parse": parse, "coverage": share})
        return rows

    return work
