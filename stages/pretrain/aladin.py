"""Train ALADIN's projection head: crops of one style group share a code, crops of different groups do not.

An auxiliary task keeps colour and contrast in the codes, as the original's reconstruction did (Ruta et al. 2021): a
linear decoder, dropped afterwards, tells the statistics of a view from its code.

The VGG16 statistics are frozen, so they are computed once per crop and kept. The head is then trained in the space of
their principal components, and starts as that space, whitened. At the end its first layer is folded back to 8448
inputs, so that what is saved has the published architecture.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.trunks import LAYOUTS, Trunk
from models.encoders.aladin import STATISTICS, Aladin, ProjectionHead
from models.losses.contrastive import multi_positive
from models.regions import CODE_SIZE
from pipeline import hashing, progress, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.training import checkpoint
from pipeline.training.loop import SAVE_EVERY, Loop, holding
from pipeline.training.state import State, advance
from stages.evaluate.retrieval import retrieval, same_group, top1
from stages.pretrain.aladin_crops import CROPS, Work, collect, gather, pooled, trunk

NAME = "train-aladin"
OUTPUT = Path("weights/portable/aladin.safetensors")
SUBSETS = [c for n in (1, 2, 3) for c in combinations(range(CROPS), n)]  # crops are pooled into larger views
DISJOINT = [
    p
    for p in combinations(range(len(SUBSETS)), 3)  # views of a work that share no crop
    if len({crop for view in p for crop in SUBSETS[view]}) == sum(len(SUBSETS[view]) for view in p)
]
FEWEST = 60
BATCH = 256  # works sampled per step; each work of a sub-folder adds another one of it
CHUNK = 64
RATE, DECODER_RATE = 5e-4, 2e-3
AUXILIARY = 10.0  # weight of the auxiliary task beside the contrast
DECAY = 0.05
DROP = 0.2
TEMPERATURE = 0.04


@dataclass(frozen=True)
class Setup:
    """What a step reads: component views [N, S, 256] of N works, how often each is sampled, its group's number.

    `spread` is the variance of the components, summed over them.
    """

    views: Tensor
    weight: NDArray[np.float64]
    group: NDArray[np.int64]
    spread: float
    steps: int
    seed: int


@holding(NAME)
def run(
    ctx: Context,
    *,
    data: Path,
    steps: int = 3000,
    minutes: float | None = None,
    check: Path | None = None,
    output: Path = OUTPUT,
) -> int:
    """Train on `data`/style, some of `data`/content and the museum's paintings, and save the head to `output`.

    A sub-folder of `data`/style is a style group, any other work a group of its own. Statistics, checkpoint and log lie
    in the run folder: run it again to resume. The limit counts works in mixed order. A tenth of the groups is held out.
    `check` is a folder with style/ and nonportrait/, never trained on, measured at the end.
    Raises: UserError(2) when there are too few works.
    """
    folder, seed = ctx.run / NAME, ctx.profile.seed
    listed = gather(data)
    size = ctx.profile.aladin.input_size
    count = min(ctx.limit or len(listed), len(listed))
    if count < FEWEST:
        raise UserError(
            f"{data}: holds {count} works, too few for {CODE_SIZE} components; expected {FEWEST} or more", 2
        )
    with lock(folder, NAME, nested=True):
        stats = collect(ctx, folder, listed, size, count)
    listed = listed[:count]
    held = np.array([is_held_out(w) for w in listed])
    train = [w for w, out in zip(listed, held, strict=True) if not out]
    recipe = {
        "seed": seed,
        "steps": steps,
        "vgg": weights.sha256("lpips-vgg"),
        "size": size,
    }
    content = hashing.digest(json.dumps([[w.content, w.weight] for w in listed]).encode()).hex()[:12]
    done, head = fit(ctx, folder, stats[~held], train, steps, minutes, recipe, {"data": f"{count} works {content}"})
    tensors = {f"proj_head.{k}": v.half() for k, v in head.state_dict().items()}
    meta = {
        "what": "ALADIN projection head on the statistics of LPIPS' VGG16 trunk (ReLU, ImageNet normalisation)",
        "data": f"{len(listed)} works of {data.name}/style, {data.name}/content and the paintings package, in "
        f"{len({w.group for w in listed})} groups, {CROPS} crops each; {int(held.sum())} works held out",
        "command": f"hypernst train-aladin --data {data.name} --limit {len(listed)} --steps {done}",
        "input_size": size,
    }
    final = Aladin(tensors, trunk=Trunk("vgg16"), size=size).head
    meta |= held_out(stats[held], final, np.array([w.group for w in listed])[held])
    checkpoint.save(output, tensors, meta)
    if check is not None:
        files = sorted(p for f in ("style", "nonportrait") for p in (check / f).glob("*.jpg"))
        raw, coded = retrieval(Aladin(tensors, trunk=trunk(), size=size), files)
        meta |= {"check_top1_raw": round(raw, 4), "check_top1": round(coded, 4), "checked": len(files)}
        checkpoint.save(output, tensors, meta)
    progress.say(f"train-aladin: {json.dumps({k: v for k, v in meta.items() if 'top1' in k})} -> {output}")
    return 0


def is_held_out(work: Work) -> bool:
    """Whether the work is held out: a tenth of all works, sub-folders as a whole."""
    named = work.group if work.group.endswith("/") else work.content
    return hashing.seed_from(named.encode()) % 10 == 0


def basis(rows: Tensor, size: int, seed: int) -> nn.Linear:
    """Half-whitened principal components of statistics [N, 8448], as a linear layer to `size`.

    First each layer's block of means, or of standard deviations, is scaled to the same spread. Single channels are not
    scaled: that would amplify noise.
    """
    mean = rows.mean(0)
    centred = rows - mean
    blocks = [conv.outputs for conv in LAYOUTS["vgg16"] for _ in range(2)]
    scale = torch.cat(
        [
            1 / block.square().sum(1).mean().sqrt().clamp_min(1e-6).expand(block.shape[1])
            for block in centred.split(blocks, 1)
        ]
    )
    torch.manual_seed(seed)
    _, spread, vectors = torch.svd_lowrank(centred * scale, q=size, niter=4)
    layer = nn.Linear(STATISTICS, size)
    layer.weight.data = (vectors / (spread / len(rows) ** 0.5).sqrt()).T * scale
    layer.bias.data = -layer.weight.data @ mean
    return layer


def fit(
    ctx: Context,
    folder: Path,
    stats: NDArray[np.float16],
    works: Sequence[Work],
    steps: int,
    minutes: float | None,
    recipe: dict[str, Any],
    settings: dict[str, Any] | None = None,
) -> tuple[int, ProjectionHead]:
    """Train a head on statistics [N, CROPS, 8448] of the works; the steps done, and the head over 8448 inputs.

    Three views of a work, pooled from different crops, attract each other and those of its style group. They repel all
    other works of the batch. Training runs in the space of the principal components and starts from them: a ReLU and
    its mirrored twin together are linear, so the start is exactly the components.
    """
    seed, head = ctx.profile.seed, ProjectionHead(2 * CODE_SIZE, inputs=CODE_SIZE).to(ctx.device)
    to_components = nn.Linear(STATISTICS, CODE_SIZE).requires_grad_(False)
    torch.manual_seed(seed)
    decoder = nn.Linear(CODE_SIZE, CODE_SIZE).to(ctx.device)
    state = State(
        folder / "checkpoint.safetensors",
        {"head": head, "decoder": decoder, "basis": to_components},
        {
            "adamw": torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY),
            "decoder_adamw": torch.optim.AdamW(decoder.parameters(), DECODER_RATE, weight_decay=DECAY),
        },
        recipe,
        settings or {},
    )
    if not state.resume():
        rows = torch.from_numpy(stats.reshape(-1, STATISTICS).astype(np.float32))
        to_components.load_state_dict(basis(rows, CODE_SIZE, seed).state_dict())
        with torch.no_grad():
            eye = torch.eye(CODE_SIZE, device=ctx.device)
            head.fc1.weight.copy_(torch.cat([eye, -eye]))
            head.fc2.weight.copy_(torch.cat([eye, -eye], 1) / 1.01)
            for bias in (head.fc1.bias, head.fc2.bias):
                bias.zero_()
    with torch.no_grad():
        chunks = (torch.from_numpy(stats[i : i + CHUNK].astype(np.float32)) for i in range(0, len(stats), CHUNK))
        views = torch.cat(
            [torch.stack([to_components(pooled(chunk[:, list(c)])) for c in SUBSETS], 1) for chunk in chunks]
        ).to(ctx.device)
    weight = np.array([w.weight for w in works])
    group = np.unique([w.group for w in works], return_inverse=True)[1]
    setup = Setup(views, weight / weight.sum(), group, float(views.flatten(0, 1).var(0).sum()), steps, seed)
    loop = Loop.of(NAME, state, steps, minutes=minutes, images=min(BATCH, len(works)), save_every=SAVE_EVERY)
    with loop:
        for step in loop:
            loop.tell(train_step(state, setup, step, loop))
    head.cpu()
    out = ProjectionHead(2 * CODE_SIZE)
    with torch.no_grad():
        out.fc1.weight.copy_(head.fc1.weight @ to_components.weight)
        out.fc1.bias.copy_(head.fc1.weight @ to_components.bias + head.fc1.bias)
    out.fc2.load_state_dict(head.fc2.state_dict())
    return state.step, out


def sample_batch(setup: Setup, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """A step's works [B], three views [B, 3] of each, and the dropout factors [B, 3, 256] of their components.

    Works are sampled by their weight. Each adds a random work of its group, which may be itself.
    """
    rng = np.random.default_rng([setup.seed, step])
    works = rng.choice(len(setup.weight), min(BATCH, len(setup.weight)), replace=False, p=setup.weight)
    partners = [rng.choice(np.flatnonzero(setup.group == setup.group[work])) for work in works]
    works = np.unique(np.concatenate([works, partners]))
    views = np.array(DISJOINT)[rng.integers(len(DISJOINT), size=len(works))]
    keep = rng.random((len(works), 3, CODE_SIZE), dtype=np.float32) > DROP
    return works, views, keep.astype(np.float32) / (1 - DROP)


def train_step(state: State, setup: Setup, step: int, loop: Loop) -> dict[str, float]:
    """One step of AdamW, whose rates follow a cosine over the run; its losses."""
    head, decoder = cast(ProjectionHead, state.nets["head"]), state.nets["decoder"]
    works, views, dropout = sample_batch(setup, step)
    rows = torch.from_numpy(works)[:, None].to(setup.views.device)
    whole = setup.views[rows, torch.from_numpy(views).to(rows.device)].flatten(0, 1)
    x = whole * torch.from_numpy(dropout).to(rows.device).flatten(0, 1)
    codes = F.normalize(head.fc2(F.leaky_relu(head.fc1(x))))
    groups = torch.from_numpy(setup.group[works].repeat(3)).to(rows.device)
    contrast = multi_positive(codes, groups, TEMPERATURE)
    told = (decoder(codes * CODE_SIZE**0.5) - whole).square().sum(1).mean() / setup.spread
    (contrast + AUXILIARY * told).backward()
    rate = 0.5 + 0.5 * math.cos(math.pi * step / setup.steps)
    bad = [
        advance(state.optimisers[name], loop.process_group, rate=rate * full)
        for name, full in (("adamw", RATE), ("decoder_adamw", DECODER_RATE))
    ]
    loop.count(next(filter(None, bad), ""))
    return {"contrast": float(contrast.detach()), "unexplained": float(told.detach())}


@torch.inference_mode()
def held_out(stats: NDArray[np.float16], head: ProjectionHead, group: NDArray[np.str_]) -> dict[str, float]:
    """Top-1 retrieval among works that were not trained on: three crops of a work find its other three.

    Where groups have several works, also how often a work finds another one of its group.
    """
    rows = torch.from_numpy(stats.astype(np.float32))
    a, b = pooled(rows[:, :3]), pooled(rows[:, 3:])
    scores = {"held_out_top1_raw": top1(a, b), "held_out_top1": top1(head(a), head(b))}
    if len(set(group)) < len(group):
        whole = pooled(rows)
        scores |= {
            "held_out_group_top1_raw": same_group(whole, group),
            "held_out_group_top1": same_group(head(whole), group),
        }
    return {name: round(value, 4) for name, value in scores.items()}
