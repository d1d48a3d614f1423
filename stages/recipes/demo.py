"""Every stage on the sample images: caches, shards, a few steps of training, an evaluation, a gallery.

The samples are too few to hold any out, and a few steps learn none of them: the evaluation takes them all.
"""

import dataclasses

from pipeline.context import Context
from pipeline.progress import say
from stages.evaluate import comparison, gallery
from stages.preprocess import aladin_codes, align, latents, masks, samples, shards
from stages.train import run as train

STEPS = 6  # enough to show the training loop; the results come from the shipped weights


def run(ctx: Context) -> int:
    """Run every stage; each computes only what is missing. Prints the paths of the overview and the sheet last."""
    status = 0
    own_images = ctx.content != ctx.cache / "samples" / "content" or ctx.style != ctx.cache / "samples" / "style"
    for stage in (*(() if own_images else (samples,)), align, masks, latents, aladin_codes, shards):
        status = max(status, stage.run(ctx))
    status = max(status, train.run(ctx, steps=STEPS))
    shown = dataclasses.replace(ctx, limit=None)
    status = max(status, comparison.run(shown, everything=True))
    page, sheet = gallery.draw(shown)
    say(f"demo: the gallery's sheet has {sheet.stat().st_size >> 10} KiB")
    print(page)
    print(sheet)
    return status
