"""Pictures of the generator's own size against enlarged ones: `python bench/apply/large.py CACHE [PORTRAITS STYLES]`.

Both are averaged down to the profile's size again, where LPIPS says how far they are from the picture there; "detail"
is the RMS (of a range of 2) of what that size cannot show. The unstylised rows are the generator's own faces.
"""

import itertools
import sys
import time
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

import hypernst
from models.metrics.lpips import LPIPS
from pipeline import weights
from stages.apply.large import LargeRenderer
from stages.apply.look import whole
from stages.portraits.portrait import cached


@torch.no_grad()
def main(cache: str, portraits: int = 4, styles: int = 4) -> None:
    """Print a table of means."""
    ctx = hypernst.load(cache=cache).ctx
    stylist = hypernst.load(cache=cache).stylist()
    large, lpips = LargeRenderer(ctx, stylist.generator), LPIPS("alex", weights.tensors("lpips-alex"))
    side = ctx.profile.generator.size
    rows: dict[str, list[tuple[float, float]]] = {}
    seconds = []

    def enlarged(x: Tensor) -> Tensor:
        return F.interpolate(x, (large.size, large.size), mode="bicubic").clamp(-1, 1)

    def judge(name: str, y: Tensor, small: Tensor) -> None:
        low = F.adaptive_avg_pool2d(y, side)
        detail = float((y - enlarged(low)).square().mean().sqrt())
        rows.setdefault(name, []).append((float(lpips(low, small)), detail))

    pairs = itertools.product(cached(ctx, "content", portraits), list(cached(ctx, "style", styles)))
    for content, style in pairs:
        prepared = stylist.prepare(content)
        deltas = stylist.deltas(prepared, whole(style, 1.0).codes(content))
        small = stylist.generator(prepared.latent, deltas, prepared.where).clamp(-1, 1)
        start = time.process_time()
        judge(f"{large.size} px", large(prepared, deltas), small)
        seconds.append(time.process_time() - start)
        judge("bicubic from the small picture", enlarged(small), small)
        own, plain = large.net(prepared.latent).clamp(-1, 1), prepared.inversion.clamp(-1, 1)
        judge("unstylised, the generator's own", own, plain)
        judge("unstylised, bicubic", enlarged(plain), plain)
    print(f"{len(seconds)} pairs, {mean(seconds):.1f} processor s each\n\n| | LPIPS-alex | detail |\n|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{mean(column):.4f}" for column in zip(*values, strict=True)) + " |")


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), *map(int, sys.argv[2:]))
