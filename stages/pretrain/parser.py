"""Train the portrait parser: a photo teacher labels faces, and the same faces, repainted, keep those labels.

The teacher (BiSeNetV2) is right on photos and wrong on strong paintings, so it never labels a painting here. Some
of the photos are copied in the manner of real artworks (AdaIN), and all are redrawn by `parser_data` at every use.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.parsing.portrait import SIZE, PortraitParser, confusion, distillation_loss, mean_iou
from models.parsing.teacher import start_from
from pipeline import progress as report
from pipeline import weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.training import checkpoint
from stages.pretrain import parser_augment

OUTPUT = Path("weights/portable/parser.safetensors")
TEACHER = "bisenetv2-celebamask"
BATCH = 8
COPIES, PLAIN = 0.25, 0.5  # share of AdaIN copies, and of photos that are bent but not repainted
RATE = 1e-4  # low: the network can already parse photos
AVERAGE = 0.99
SAVE_EVERY = 50


@dataclass(frozen=True)
class Faces:
    """Labelled photos and their stylised copies; `origins[i]` is the photo copy i shares its labels with, or -1.

    photos [N,256,256,3], labels [N,256,256,3] (all zero: not labelled yet), copies [M,256,256,3]; uint8.
    """

    photos: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    copies: NDArray[np.uint8]
    origins: NDArray[np.int64]

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One pair of picture and labels: a bent photo, a redrawn photo, or a redrawn copy where there are any."""
        labelled = np.flatnonzero(self.labels[:, 128, 128].any(1))
        copied = np.flatnonzero(np.isin(self.origins, labelled))
        other = self.photos[int(rng.integers(len(self.photos)))]
        if len(copied) and rng.random() < COPIES:
            index = int(rng.choice(copied))
            return parser_augment.draw(self.copies[index], self.labels[self.origins[index]], other, rng)
        index = int(rng.choice(labelled))
        redraw = parser_augment.draw_plain if rng.random() < PLAIN else parser_augment.draw
        return redraw(self.photos[index], self.labels[index], other, rng)


def run(
    ctx: Context,
    *,
    data: Path,
    minutes: float = 40,
    copies: int = 260,
    shipped: bool = True,
    check: Path | None = None,
    output: Path = OUTPUT,
) -> int:
    """Train for `minutes` on the faces in `data`/content, stylised after `data`/style, and save `output`.

    Goes on from the profile's parser, or with `shipped` False starts from the teacher.
    Prepared pictures and the training's state lie in the run folder: run it again to go on. `check` is a folder of
    NAME.jpg with NAME.png region maps, measured at the end and noted in the weights' header, never trained on.
    """
    faces = prepare(ctx, data, copies)
    meta: dict[str, Any] = {
        "what": "three-region portrait parser, distilled from BiSeNetV2 (CelebAMask-HQ)",
        "data": f"{len(faces.photos)} faces of {data.name}/content labelled by the teacher,"
        f" {len(faces.copies)} AdaIN copies after {data.name}/style",
        "command": f"hypernst train-parser --data {data.name} --minutes {minutes:g}"
        + ("" if shipped else " --from-scratch"),
    }
    parser = fit(ctx, faces, minutes, output, meta, shipped=shipped)
    if check is not None:
        score, count = measure(parser, check)
        report.say(f"train-parser: mean IoU {score:.4f} on {count} pictures of {check.name}")
        _, meta = checkpoint.load(output)
        meta |= {"miou": round(score, 4), "checked": count}
        checkpoint.save(output, checkpoint.half(parser.state_dict()), meta)
    return 0


def fit(
    ctx: Context, faces: Faces, minutes: float, output: Path, meta: dict[str, Any], *, shipped: bool
) -> PortraitParser:
    """Train, saving the averaged weights to `output` every SAVE_EVERY steps; resumes from the run folder."""
    torch.manual_seed(ctx.profile.seed)
    if shipped:
        parser = PortraitParser.load(weights.tensors(ctx.profile.parser.weights)).train().requires_grad_(True)
    else:
        parser = start_from(weights.tensors(TEACHER))
    parser = parser.to(ctx.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: tensor.clone() for name, tensor in parser.state_dict().items()}
    optimiser = torch.optim.AdamW(parser.parameters(), lr=RATE, weight_decay=0.02)
    state_file, step, spent = ctx.run / "train-parser.safetensors", 0, 0.0
    if state_file.exists():
        tensors, state = checkpoint.load(state_file)
        parser.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")})
        average = {n.removeprefix("mean."): t for n, t in tensors.items() if n.startswith("mean.")}
        checkpoint.restore_optimiser(optimiser, tensors, "adam")
        step, spent = state["step"], state["seconds"]
    start, losses = time.monotonic() - spent, list[float]()
    for images, target in batches(faces, np.random.default_rng([ctx.profile.seed, step])):
        done = (time.monotonic() - start) / (minutes * 60)
        for group in optimiser.param_groups:
            group["lr"] = RATE * rate(step, done)
        optimiser.zero_grad()
        with torch.autocast(torch.device(ctx.device).type, torch.bfloat16):
            logits = parser(images.to(ctx.device, memory_format=torch.channels_last))
        loss = distillation_loss(logits.float(), target.to(ctx.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parser.parameters(), 5.0)
        optimiser.step()
        step += 1
        losses.append(float(loss.detach()))
        keep = min(AVERAGE, 1 - 1 / (1 + step / 10))
        for name, tensor in parser.state_dict().items():
            average[name].lerp_(tensor, 1 - keep)
        if step % SAVE_EVERY == 0 or done >= 1:
            line = {"step": step, "minutes": round(done * minutes, 1), "loss": round(float(np.mean(losses)), 4)}
            print(json.dumps(line), flush=True)
            losses.clear()
            tensors = checkpoint.optimiser_tensors(optimiser, "adam")
            tensors |= {f"net.{n}": t for n, t in parser.state_dict().items()}
            tensors |= {f"mean.{n}": t for n, t in average.items()}
            checkpoint.save(state_file, tensors, {"step": step, "seconds": time.monotonic() - start})
            checkpoint.save(output, checkpoint.half(average), meta | line)
        if done >= 1:
            break
    return PortraitParser.load(average).to(ctx.device)


def rate(step: int, done: float) -> float:
    """The share of the peak rate: a short warming up, then a cosine over `done`, the share of the time passed."""
    return min(1.0, (step + 1) / 50) * max(0.01, 0.5 + 0.5 * float(np.cos(np.pi * min(done, 1.0))))


def batches(faces: Faces, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of images [8,3,256,256] in [-1,1] and label probabilities [8,3,256,256]."""
    while True:
        drawn = [faces.draw(rng) for _ in range(BATCH)]
        images, labels = (np.stack(part).transpose(0, 3, 1, 2) for part in zip(*drawn, strict=True))
        target = torch.from_numpy(labels.astype(np.float32))
        yield torch.from_numpy(images.astype(np.float32)) / 127.5 - 1, target / target.sum(1, keepdim=True).clamp(min=1)


def prepare(ctx: Context, data: Path, copies: int) -> Faces:
    """Label and stylise the faces once, into .npy files of the run folder; goes on where it was interrupted."""
    files, styles = _pictures(data / "content"), _pictures(data / "style")
    rng = np.random.default_rng(ctx.profile.seed)
    faces = _open(ctx.run / "parser-data", len(files), min(copies, len(files)))
    _label(ctx, faces, files)
    _stylise(ctx, faces, styles, rng)
    return faces


def measure(parser: PortraitParser, folder: Path) -> tuple[float, int]:
    """Mean IoU over the three regions, pixels pooled, and the number of pictures of a folder of .jpg and .png pairs."""
    counts = torch.zeros(3, 3, dtype=torch.long)
    files = _pictures(folder)
    for file in files:
        truth = cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
        if truth is None:
            raise Fault(
                f"{file.with_suffix('.png')}: no region map beside {file.name}; expected a grey PNG of 0, 1, 2", 2
            )
        image = torch.from_numpy(_read(file)).permute(2, 0, 1)[None].float() / 127.5 - 1
        found = parser.parse(image)[0].cpu().numpy()
        found = cv2.resize(found, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        counts += confusion(torch.from_numpy(truth), torch.from_numpy(found))
    return mean_iou(counts), len(files)


def _label(ctx: Context, faces: Faces, files: list[Path]) -> None:
    """Fill photos and labels; a row with labels is done."""
    missing = np.flatnonzero(~faces.labels[:, 128, 128].any(1))
    if not len(missing):
        return
    teacher = start_from(weights.tensors(TEACHER)).requires_grad_(False).to(ctx.device)
    progress = report.Progress("labels", len(missing))
    for index in missing:
        faces.photos[index] = _read(files[index])
        probability = teacher(_tensor(faces.photos[index]).to(ctx.device)).softmax(1)[0]
        faces.labels[index] = (probability * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        progress.add(1)
    progress.close()


def _stylise(ctx: Context, faces: Faces, styles: list[Path], rng: np.random.Generator) -> None:
    """Fill copies and origins: AdaIN of a random photo after a random artwork at a random strength."""
    from models.baselines.adain import AdaIN

    missing = np.flatnonzero(faces.origins < 0)
    if not len(missing):
        return
    adain = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)
    order = rng.permutation(len(faces.photos))
    progress = report.Progress("stylised copies", len(missing))
    for index in missing:
        style = _tensor(_read(styles[int(rng.integers(len(styles)))])).to(ctx.device)
        photo = _tensor(faces.photos[order[index]]).to(ctx.device)
        copy = adain(photo, style, alpha=float(rng.uniform(0.4, 1.0)))[0]
        faces.copies[index] = ((copy + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        faces.origins[index] = order[index]
        progress.add(1)
    progress.close()


def _open(folder: Path, photos: int, copies: int) -> Faces:
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"photos": (photos, SIZE, SIZE, 3), "labels": (photos, SIZE, SIZE, 3), "copies": (copies, SIZE, SIZE, 3)}
    arrays = {}
    for name, shape in (shapes | {"origins": (copies,)}).items():
        path = folder / f"{name}.npy"
        if not path.exists():
            kind = np.dtype(np.int64 if name == "origins" else np.uint8)
            array = np.lib.format.open_memmap(path, "w+", kind, shape)
            if name == "origins":
                array[:] = -1
            array.flush()
        arrays[name] = np.load(path, mmap_mode="r+")
    return Faces(**arrays)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*.jpg") if not path.name.startswith("."))
    if not found:
        raise Fault(f"{folder} holds no .jpg; expected the training pictures there", 2)
    return found


def _read(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise Fault(f"{path} is not a readable picture; remove it from the training folder")
    image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    if image.shape[:2] == (SIZE, SIZE):
        return image
    return np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def _tensor(rgb: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
