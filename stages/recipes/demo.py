"""Everything from nothing on the sample pictures: caches, shards, a little more training, an evaluation, a gallery."""

import dataclasses

from pipeline.context import Context
from pipeline.progress import say
from stages.evaluate import comparison, gallery
from stages.preprocess import aladin_codes, align, latents, masks, samples, shards
from stages.train import run as train

STEPS = 6  # enough to show the loop stream the shards; the shipped weights carry the pictures


def run(ctx: Context) -> int:
    """Run every stage; each does only what is missing. Prints the gallery's two paths last."""
    status = 0
    own = ctx.content != ctx.cache / "samples" / "content" or ctx.style != ctx.cache / "samples" / "style"
    for stage in (*(() if own else (samples,)), align, masks, latents, aladin_codes, shards):
        status = max(status, stage.run(ctx))
    status = max(status, train.run(ctx, steps=STEPS))
    shown = dataclasses.replace(ctx, limit=None)
    status = max(status, comparison.run(shown))
    page, sheet = gallery.draw(shown, ctx.run)
    say(f"demo: {sheet.stat().st_size >> 10} KiB of gallery")
    print(page)
    print(sheet)
    return status
