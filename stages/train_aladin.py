"""Train ALADIN's projection head: crops of one artwork share a code, crops of different artworks do not.

The VGG16 statistics are frozen, so they are computed once a crop and kept; only then does anything train, in the space
of their principal components. The head starts as that space, whitened, and its first layer is folded back to 8448
inputs at the end: what is saved is the published architecture.
"""

import csv
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from models.aladin import CODE, STATISTICS, Aladin, Head
from models.vgg import LAYOUTS, Trunk
from pipeline import checkpoint, files, pictures, report, weights
from pipeline.context import Context
from pipeline.errors import Fault

OUTPUT = Path("weights/portable/aladin.safetensors")
SIDE = 256  # pictures are brought to this side first: a crop's size means the same in all of them
GRID = 3  # crops come from different cells, so that they never overlap
CROPS = 6
SUBSETS = [c for n in (1, 2, 3) for c in combinations(range(CROPS), n)]  # crops are pooled into larger views
PHOTOS = 150
NATIVE = 128  # a picture upscaled from less than this teaches blur
FEWEST = 60
BATCH = 384
CHUNK = 64
RATE = 5e-4
DECAY = 0.05
DROP = 0.2
TEMPERATURE = 0.04


@dataclass(frozen=True)
class Work:
    """One picture to learn from; `weight` is how often it is drawn, less for upscaled ones."""

    path: Path
    weight: float


def run(ctx: Context, *, data: Path, steps: int = 3000, check: Path | None = None, output: Path = OUTPUT) -> int:
    """Train on `data`/style, some of `data`/content and the museum's paintings, and save the head to `output`.

    The statistics lie in the run folder: run it again to go on. The limit counts works, in mixed order; a
    tenth of them is held out. `check` is a folder with style/ and nonportrait/, never trained on, measured at the end.
    """
    listed = gather(data)
    size = ctx.profile.aladin.input_size
    count = min(ctx.limit or len(listed), len(listed))
    if count < FEWEST:
        raise Fault(f"{data}: {count} works are too few to learn {CODE} components from, expected at least {FEWEST}", 2)
    stats = collect(ctx, listed, size, count)
    listed = listed[:len(stats)]
    held = np.array([zlib.crc32(w.path.name.encode()) % 10 == 0 for w in listed])
    head = fit(stats[~held], np.array([w.weight for w in listed])[~held], steps, ctx.profile.seed)
    tensors = {f"proj_head.{k}": v.half() for k, v in head.state_dict().items()}
    meta = {
        "what": "ALADIN projection head on the statistics of LPIPS' VGG16 trunk (ReLU, ImageNet normalisation)",
        "data": f"{len(listed)} works of {data.name}/style, {data.name}/content and the paintings package, "
        f"{CROPS} crops each; {int(held.sum())} works held out",
        "command": f"hypernst train-aladin --data {data.name} --limit {len(listed)} --steps {steps}",
        "input_size": size,
    }
    final = Aladin(tensors, trunk=Trunk("vgg16"), size=size).head
    meta |= held_out(stats[held], final)
    checkpoint.save(output, tensors, meta)
    if check is not None:
        found = sorted(p for f in ("style", "nonportrait") for p in (check / f).glob("*.jpg"))
        raw, coded = retrieval(Aladin(tensors, trunk=trunk(), size=size), found)
        meta |= {"check_top1_raw": round(raw, 4), "check_top1": round(coded, 4), "checked": len(found)}
        checkpoint.save(output, tensors, meta)
    report.say(f"train-aladin: {json.dumps({k: v for k, v in meta.items() if 'top1' in k})} -> {output}")
    return 0


def trunk() -> Trunk:
    """The VGG16 that LPIPS ships, shared so that it is fetched once."""
    return Trunk("vgg16", weights.tensors("lpips-vgg"))


def gather(data: Path) -> list[Work]:
    """List the pictures to learn from, in a fixed mixed order.

    A table `<folder>.csv` beside a folder may give `native_crop_px`: a picture upscaled from little weighs less.
    Raises: Fault when `data`/style holds no pictures.
    """
    works: list[Work] = []
    for folder, limit in ((data / "style", None), (data / "content", PHOTOS), (weights.path("paintings"), None)):
        native: dict[str, float] = {}
        table = folder.with_suffix(".csv")
        if table.exists():
            with table.open() as rows:
                native = {row["file"].rpartition("/")[2]: float(row["native_crop_px"]) for row in csv.DictReader(rows)}
        found = sorted(p for p in folder.glob("*") if p.suffix.lower() in pictures.SUFFIXES)
        if limit is not None and len(found) > limit:
            found = found[:: len(found) // limit][:limit]
        sized = ((p, native.get(p.name, SIDE)) for p in found)
        works += [Work(p, min(1.0, side / SIDE)) for p, side in sized if side >= NATIVE or folder.name == "content"]
    if not any(w.path.parent.name == "style" for w in works):
        raise Fault(f"{data / 'style'}: no pictures to learn styles from", 2)
    return sorted(works, key=lambda w: files.short_hash(w.path.name))


def cut(rgb: NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """Crops (CROPS, 3, size, size) of 56 to 85 px at 256 from different cells of a 3 x 3 grid; some flipped."""
    cell = SIDE // GRID
    tensors: list[Tensor] = []
    for index in rng.choice(GRID**2, CROPS, replace=False):
        side = int(rng.integers(cell * 2 // 3, cell + 1))
        x, y = (int(c) * cell + int(rng.integers(0, cell - side + 1)) for c in (index % GRID, index // GRID))
        crop = resized(rgb[y:y + side, x:x + side], size)
        tensors.append(crop.flip(-1) if rng.random() < 0.5 else crop)
    return torch.cat(tensors)


def resized(rgb: NDArray[np.uint8], size: int) -> Tensor:
    """One picture as a (1, 3, size, size) tensor in [-1, 1]."""
    return F.interpolate(pictures.to_tensor(rgb), (size, size), mode="bilinear", antialias=True)


def collect(ctx: Context, works: Sequence[Work], size: int, count: int) -> NDArray[np.float16]:
    """Statistics of every crop of the first `count` works, (count, CROPS, 8448).

    They are computed once and resumed where that stopped. Crops come from different cells of the
    picture, so that two of them share the style but no pixel.
    """
    names = [w.path.name for w in works]
    recipe = json.dumps([names, size, SIDE, CROPS, weights.sha256("lpips-vgg"), ctx.profile.seed])
    path = ctx.run / f"aladin-statistics-{files.short_hash(recipe)}.npy"
    note = path.with_suffix(".done")
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(works), CROPS, STATISTICS)
    done = int(note.read_text()) if note.exists() and path.exists() else 0
    stats = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, shape)
    if done < count:
        net = Aladin(trunk=trunk(), size=size)
        for i in tqdm(range(done, count), initial=done, total=count, unit="work", mininterval=5):
            rng = np.random.default_rng([ctx.profile.seed, zlib.crc32(works[i].path.name.encode())])
            crops = cut(pictures.decode(works[i].path.read_bytes(), SIDE), size, rng)
            with torch.inference_mode():
                stats[i] = net.statistics(crops).half().numpy()
            if i % 50 == 49 or i == count - 1:
                stats.flush()
                files.write_atomic(note, str(i + 1).encode())
    return stats[:count]


def pooled(stats: Tensor) -> Tensor:
    """Statistics (..., 8448) of the union of crops (..., K, 8448), as if they were one larger crop."""
    out: list[Tensor] = []
    start = 0
    for conv in LAYOUTS["vgg16"]:
        mean, std = stats[..., start:start + conv.outputs], stats[..., start + conv.outputs:start + 2 * conv.outputs]
        middle = mean.mean(-2, keepdim=True)
        out += [middle.squeeze(-2), (std.square() + (mean - middle).square()).mean(-2).sqrt()]
        start += 2 * conv.outputs
    return torch.cat(out, -1)


def basis(rows: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Half-whitened principal components of statistics (N, 8448): a linear layer, weight (size, 8448) and bias.

    Every layer's block of means or deviations is first brought to the same spread, and not every channel, which would
    amplify noise.
    """
    mean = rows.mean(0)
    centred = rows - mean
    blocks = [conv.outputs for conv in LAYOUTS["vgg16"] for _ in range(2)]
    scale = torch.cat([1 / block.square().sum(1).mean().sqrt().clamp_min(1e-6).expand(block.shape[1])
                       for block in centred.split(blocks, 1)])
    torch.manual_seed(seed)
    _, spread, vectors = torch.svd_lowrank(centred * scale, q=size, niter=4)
    weight = (vectors / (spread / len(rows) ** 0.5).sqrt()).T * scale
    return weight, -weight @ mean


def fit(stats: NDArray[np.float16], weight: NDArray[np.float64], steps: int, seed: int) -> Head:
    """Train a head on statistics (N, CROPS, 8448) of N works drawn in proportion to `weight`.

    Two views of a work, pooled from different crops, attract each other and repel all other works of the batch
    (multi-positive contrastive loss). Training runs in the space of the principal components and starts from them:
    a rectifier's unit and its mirror image together are linear, so the start is exactly the components.
    """
    weight_in, bias_in = basis(torch.from_numpy(stats.reshape(-1, STATISTICS).astype(np.float32)), CODE, seed)
    chunks = (torch.from_numpy(stats[i:i + CHUNK].astype(np.float32)) for i in range(0, len(stats), CHUNK))
    views = torch.cat([
        torch.stack([F.linear(pooled(chunk[:, list(c)]), weight_in, bias_in) for c in SUBSETS], 1) for chunk in chunks
    ])
    disjoint = [(i, j) for i, a in enumerate(SUBSETS) for j, b in enumerate(SUBSETS) if not set(a) & set(b)]
    pairs = torch.tensor(disjoint)
    head = Head(2 * CODE, inputs=CODE)
    with torch.no_grad():
        eye = torch.eye(CODE)
        head.fc1.weight.copy_(torch.cat([eye, -eye]))
        head.fc2.weight.copy_(torch.cat([eye, -eye], 1) / 1.01)
        for bias in (head.fc1.bias, head.fc2.bias):
            bias.zero_()
    trained = contrast(head, views, pairs, torch.from_numpy(weight), steps, seed)
    out = Head(2 * CODE)
    with torch.no_grad():
        out.fc1.weight.copy_(trained.fc1.weight @ weight_in)
        out.fc1.bias.copy_(trained.fc1.weight @ bias_in + trained.fc1.bias)
    out.fc2.load_state_dict(trained.fc2.state_dict())
    return out


def contrast(head: Head, views: Tensor, pairs: Tensor, weight: Tensor, steps: int, seed: int) -> Head:
    """Train `head` on component views (N, S, 256); `pairs` (K, 2) lists which two views share no crop."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    batch = min(BATCH, len(views))
    for _ in tqdm(range(steps), unit="step", mininterval=5):
        works = torch.multinomial(weight, batch, generator=generator)
        both = pairs[torch.randint(len(pairs), (batch,), generator=generator)]
        x = torch.cat([views[works, both[:, 0]], views[works, both[:, 1]]])
        keep = (torch.rand(x.shape, generator=generator) > DROP).float() / (1 - DROP)
        codes = F.normalize(head.fc2(F.leaky_relu(head.fc1(x * keep))))
        logits = codes @ codes.T / TEMPERATURE - torch.eye(2 * batch) * 1e4
        loss = F.cross_entropy(logits, torch.arange(2 * batch).roll(batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head


def top1(a: Tensor, b: Tensor) -> float:
    """How often the nearest row of the other side (by cosine) is the same work's, both ways."""
    near = F.normalize(a) @ F.normalize(b).T
    truth = torch.arange(len(a))
    return float((near.argmax(1) == truth).float().mean() + (near.argmax(0) == truth).float().mean()) / 2


@torch.inference_mode()
def held_out(stats: NDArray[np.float16], head: Head) -> dict[str, float]:
    """Retrieval among works that were not trained on: three crops of a work find its other three."""
    rows = torch.from_numpy(stats.astype(np.float32))
    a, b = pooled(rows[:, :3]), pooled(rows[:, 3:])
    return {"held_out_top1_raw": round(top1(a, b), 4), "held_out_top1": round(top1(head(a), head(b)), 4)}


@torch.inference_mode()
def retrieval(net: Aladin, paths: Sequence[Path]) -> tuple[float, float]:
    """Top-1 of raw statistics and of codes: a picture's top left quarter finds its bottom right one.

    Quarters are seen at the scale that the codes' windows are: 128 px of a picture brought to 256.
    """
    half = SIDE // 2
    corners: list[Tensor] = []
    for path in tqdm(paths, unit="picture", mininterval=5):
        image = pictures.to_tensor(pictures.decode(path.read_bytes(), SIDE))
        corners.append(net.statistics(torch.cat([image[..., :half, :half], image[..., half:, half:]]), half))
    a, b = torch.stack(corners).unbind(1)
    return top1(a, b), top1(net.head(a), net.head(b))
