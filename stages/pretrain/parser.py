"""Train the portrait parser: a teacher labels photos of faces, and the same faces, repainted, keep those labels.

The teacher (BiSeNetV2) is right on photos and wrong on strong paintings, so it never labels a painting here. Some of
the photos are stylised after real artworks (AdaIN), and `parser_augment` changes all of them at every use. Art that was
labelled by hand can be learnt from beside them.
"""

import copy
import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.parsing.portrait import PortraitParser, distillation_loss
from models.parsing.teacher import start_from
from models.regions import MAP_SIZE, REGION_COUNT
from pipeline import images, progress, weights
from pipeline.context import Context
from pipeline.device import has_bfloat16
from pipeline.files import new_array, read_json, write_atomic
from pipeline.locks import lock
from pipeline.training import checkpoint
from pipeline.training.loop import SAVE_EVERY, Loop, holding
from pipeline.training.prefetch import Prefetcher
from pipeline.training.state import State, advance, refuse_difference
from stages.evaluate import parsing
from stages.loaders.load import load
from stages.pretrain import parser_augment

NAME = "train-parser"
OUTPUT = Path("weights/portable/parser.safetensors")
TEACHER = "bisenetv2-celebamask"
BATCH = 8
SAMPLERS = min(8, os.cpu_count() or 1)  # processes, for a GPU: a batch takes one of them 0.1 s
LABELLED = 0.3  # share of art labelled by hand, where there is any
COPIES, PLAIN = 0.25, 0.5  # in the rest, share of AdaIN copies, and of photos that are warped but not repainted
RATE = 1e-4  # low: the network can already parse photos
EMA, WARM_UP = 0.99, 50
Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images and labels


@dataclass(frozen=True)
class Faces:
    """Labelled photos and their stylised copies; `origins[i]` is the photo copy i shares its labels with, or -1.

    photos [N, 256, 256, 3], labels [N, 256, 256, 3] (all zero: not labelled yet), copies [M, 256, 256, 3]; uint8.
    `art` are images with labels of their own, shaped as these.
    """

    photos: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    copies: NDArray[np.uint8]
    origins: NDArray[np.int64]
    art: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = ()

    def sample(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An image and its labels: warped art or a repainted copy, where there are any, or a photo, at least warped."""
        labelled = np.flatnonzero(self.labels[:, 128, 128].any(1))
        copied = np.flatnonzero(np.isin(self.origins, labelled))
        other = self.photos[int(rng.integers(len(self.photos)))]
        if self.art and rng.random() < LABELLED:
            return parser_augment.draw_art(*self.art[int(rng.integers(len(self.art)))], rng)
        if len(copied) and rng.random() < COPIES:
            index = int(rng.choice(copied))
            return parser_augment.draw(self.copies[index], self.labels[self.origins[index]], other, rng)
        index = int(rng.choice(labelled))
        redraw = parser_augment.draw_plain if rng.random() < PLAIN else parser_augment.draw
        return redraw(self.photos[index], self.labels[index], other, rng)


@dataclass(frozen=True)
class Setup:
    """The networks of a run, what they learn from, and how many steps in all."""

    net: PortraitParser
    ema: PortraitParser
    optimiser: torch.optim.Optimizer
    faces: Faces
    steps: int


@holding(NAME)
def run(
    ctx: Context,
    *,
    data: Path,
    steps: int = 500,
    minutes: float | None = None,
    copies: int = 260,
    shipped: bool = True,
    labelled: Path | None = None,
    teacher_share: float = 0.0,
    check: Path | None = None,
    output: Path = OUTPUT,
) -> int:
    """Train on the faces in `data`/content, stylised after `data`/style, until `steps` or `minutes` of this call.

    Starts from the profile's parser, or with `shipped` False from the teacher. Prepared images, checkpoint and log lie
    in the run folder: run it again to resume. `labelled` and `check` are folders of NAME.jpg with NAME.png region maps:
    the one is trained on too, the other never. It is measured at the end, which the weights' header records.
    The result is mixed with `teacher_share` of the teacher's weights, which photos gain by.
    """
    folder = ctx.run / NAME
    with lock(folder, NAME, nested=True):
        faces, prepared = prepare(ctx, folder / "data", data, copies)
    if labelled is not None:
        faces = dataclasses.replace(faces, art=read_art(labelled))
    pairs = images.Folder(labelled, MAP_SIZE, (".jpg", ".png")).identity() if labelled else "none"
    setup = build_setup(ctx, faces, steps, shipped)
    recipe = {
        "photos": len(faces.photos),
        "copies": len(faces.copies),
        "labelled": pairs,
        "steps": steps,
        "seed": ctx.profile.seed,
        "start": weights.sha256(ctx.profile.parser.weights if shipped else TEACHER),
    } | prepared
    state = State(
        folder / "checkpoint.safetensors", {"net": setup.net, "ema": setup.ema}, {"adamw": setup.optimiser}, recipe
    )
    state.resume()
    loop = Loop.of(NAME, state, steps, minutes=minutes, images=BATCH, save_every=SAVE_EVERY)
    make = functools.partial(sample_batch, faces, ctx.profile.seed)
    with loop, Prefetcher(make, SAMPLERS if ctx.device.startswith("cuda") else 0) as prefetched:
        for step in loop:
            loop.tell(train_step(setup, prefetched[step], step, loop))
    mix(setup.ema, teacher_share)
    meta: dict[str, Any] = {
        "what": "three-region portrait parser, distilled from BiSeNetV2 (CelebAMask-HQ)",
        "steps": state.step,
        "data": f"{len(faces.photos)} faces of {data.name}/content labelled by the teacher,"
        f" {len(faces.copies)} AdaIN copies after {data.name}/style, {len(faces.art)} artworks labelled by hand",
        "command": f"hypernst {NAME} --data {data.name} --steps {state.step}"
        + ("" if shipped else " --from-scratch")
        + (f" --labelled {labelled.name}" if labelled else "")
        + (f" --teacher-share {teacher_share}" if teacher_share else ""),
    }
    if check is not None:
        score, count = parsing.measure(setup.ema, check)
        progress.say(f"{NAME}: mean IoU {score:.4f} on {count} images of {check.name}")
        meta |= {"miou": round(score, 4), "checked": count}
    checkpoint.save(output, checkpoint.half(setup.ema.state_dict()), meta)
    progress.say(f"{NAME}: saved {output} after {state.step} steps")
    return 0


def build_setup(ctx: Context, faces: Faces, steps: int, shipped: bool) -> Setup:
    """The networks of a run: from the profile's parser, or with `shipped` False from the teacher."""
    torch.manual_seed(ctx.profile.seed)
    if shipped:
        net = load(ctx.profile.parser.weights, PortraitParser.load).train().requires_grad_(True)
    else:
        net = start_from(weights.tensors(TEACHER))
    net = net.to(ctx.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(net).requires_grad_(False).eval()
    return Setup(net, ema, torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.02), faces, steps)


def mix(net: PortraitParser, share: float) -> None:
    """Move the weights by `share` of the way back to the teacher's (Wortsman et al. 2022)."""
    if share:
        teacher = start_from(weights.tensors(TEACHER)).to(next(net.parameters()).device).state_dict()
        for name, tensor in net.state_dict().items():
            tensor.lerp_(teacher[name], share)


def train_step(setup: Setup, batch: Batch, step: int, loop: Loop) -> dict[str, float]:
    """One optimiser step on images and labels, both u8 [N, 256, 256, 3]."""
    device = next(setup.net.parameters()).device
    x, target = images.to_tensor(batch[0]), torch.from_numpy(batch[1]).permute(0, 3, 1, 2).float()
    target = target / target.sum(1, keepdim=True).clamp(min=1)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(str(device))):
        logits = setup.net(x.to(device, memory_format=torch.channels_last))
    loss = distillation_loss(logits.float(), target.to(device))
    loss.backward()
    rate = RATE * min(1.0, (step + 1) / WARM_UP) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * step / setup.steps))
    bad = advance(setup.optimiser, loop.process_group, rate=rate, clip=5.0)
    loop.count(bad)
    if not bad:
        keep = min(EMA, 1 - 1 / (1 + (step + 1) / 10))
        with torch.no_grad():
            current = setup.net.state_dict()
            for name, tensor in setup.ema.state_dict().items():
                tensor.lerp_(current[name], 1 - keep)
    return {"loss": float(loss.detach())}


def sample_batch(faces: Faces, seed: int, step: int) -> Batch:
    """A step's images and labels, both u8 [8, 256, 256, 3]: a quarter of what floats would take between processes."""
    rng = np.random.default_rng([seed, step])
    pairs = [faces.sample(rng) for _ in range(BATCH)]
    rgb, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    return rgb, labels


def prepare(ctx: Context, folder: Path, data: Path, copies: int) -> tuple[Faces, dict[str, Any]]:
    """Label and stylise the faces once, into .npy files of `folder`; resumes when it was interrupted.

    Returns what they were made from as well. Raises: UserError(2) when `folder` holds those of something else.
    """
    files, styles = (images.Folder(data / name, MAP_SIZE, (".jpg",)) for name in ("content", "style"))
    made: dict[str, Any] = {"content": files.identity(), "style": styles.identity() if copies else ""}
    made |= {"copies": min(copies, len(files)), "seed": ctx.profile.seed, "teacher": weights.sha256(TEACHER)}
    note = folder / "made.json"
    if note.exists():
        refuse_difference(note, read_json(note), made)
    else:
        write_atomic(note, json.dumps(made).encode())
    rng = np.random.default_rng(ctx.profile.seed)
    faces = _open(folder, len(files), min(copies, len(files)))
    _label(ctx, faces, files)
    _stylize(ctx, faces, styles, rng)
    return faces, made


def read_art(folder: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Images and labels [256, 256, 3] of `folder`'s .jpg files and region maps; an unknown pixel's labels are zero."""
    art = []
    for image, regions in parsing.labelled(folder):
        small = cv2.resize(regions, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_NEAREST)
        art.append((image, np.stack([255 * (small == i) for i in range(REGION_COUNT)], 2).astype(np.uint8)))
    return art


def _label(ctx: Context, faces: Faces, files: images.Folder) -> None:
    """Fill photos and labels; a row with labels is done."""
    missing = np.flatnonzero(~faces.labels[:, 128, 128].any(1))
    if not len(missing):
        return
    teacher = start_from(weights.tensors(TEACHER)).requires_grad_(False).to(ctx.device)
    bar = progress.Progress("labels", len(missing))
    for index in missing:
        faces.photos[index] = files[int(index)]
        probability = teacher(images.to_tensor(faces.photos[index]).to(ctx.device)).softmax(1)[0]
        faces.labels[index] = (probability * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        bar.add(1)
    bar.close()


def _stylize(ctx: Context, faces: Faces, styles: images.Folder, rng: np.random.Generator) -> None:
    """Fill copies and origins: AdaIN of a random photo after a random artwork at a random strength."""
    from models.baselines.adain import AdaIN

    missing = np.flatnonzero(faces.origins < 0)
    if not len(missing):
        return
    adain = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)
    order = rng.permutation(len(faces.photos))
    bar = progress.Progress("stylised copies", len(missing))
    for index in missing:
        style = images.to_tensor(styles[int(rng.integers(len(styles)))]).to(ctx.device)
        photo = images.to_tensor(faces.photos[order[index]]).to(ctx.device)
        copied = adain(photo, style, alpha=float(rng.uniform(0.4, 1.0)))
        faces.copies[index] = images.to_arrays(copied)[0]
        faces.origins[index] = order[index]
        bar.add(1)
    bar.close()


def _open(folder: Path, photos: int, copies: int) -> Faces:
    shapes = {
        "photos": (photos, MAP_SIZE, MAP_SIZE, 3),
        "labels": (photos, MAP_SIZE, MAP_SIZE, 3),
        "copies": (copies, MAP_SIZE, MAP_SIZE, 3),
    }
    arrays = {}
    for name, shape in (shapes | {"origins": (copies,)}).items():
        path = folder / f"{name}.npy"
        if not path.exists():
            kind = np.dtype(np.int64 if name == "origins" else np.uint8)
            new_array(path, kind, shape, fill=-1 if name == "origins" else 0)
        arrays[name] = np.load(path, mmap_mode="r+")
    return Faces(**arrays)
