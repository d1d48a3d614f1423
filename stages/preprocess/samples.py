"""Make the sample images: faces from the generator and public-domain paintings, saved as plain image files.

The later stages treat them like any unknown photos: they have to find, align and invert the faces.
"""

import dataclasses
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import device, files, weights
from pipeline.context import Context
from pipeline.locks import lock
from pipeline.progress import Progress, say

FACES, PORTRAITS, OTHERS = 11, 12, 3
SIDE = 512
TRUNCATION = 0.7
MARGIN = 0.2  # mirrored border, in sides, around the generated FFHQ square, so that alignment has work to do
MIN_FACE = 0.15  # least width of a portrait's face, as a share of the painting's shorter side
DONE = "samples.json"


def run(ctx: Context) -> int:
    """Fill CACHE/samples with content and style images. Does nothing when they are there and up to date."""
    folder, done, recipe = ctx.cache / "samples", ctx.cache / "samples" / DONE, _recipe(ctx)
    if is_current(ctx):
        say(f"samples: {folder} is up to date")
        return 0
    ctx = dataclasses.replace(ctx, device=device.resolve(ctx.device))
    with lock(ctx.cache, "samples"):
        shutil.rmtree(folder, ignore_errors=True)  # of another recipe, or left unfinished
        folder.mkdir(parents=True)
        with files.replacing(folder / "content") as content:
            content.mkdir()
            generate_faces(ctx, content)
            shutil.copyfile(weights.path("astronaut"), content / "astronaut.png")
        with files.replacing(folder / "style") as style:
            style.mkdir()
            choose_paintings(style)
        listing = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
        files.write_atomic(done, json.dumps({"recipe": recipe, "files": listing}, indent=1).encode())
    say(f"samples: {len(listing)} images in {folder}")
    return 0


def is_current(ctx: Context) -> bool:
    """Whether the samples are there and were made with this recipe."""
    folder = ctx.cache / "samples"
    done = folder / DONE
    return done.exists() and json.loads(done.read_text())["recipe"] == _recipe(ctx) and _complete(folder)


def _recipe(ctx: Context) -> dict[str, Any]:
    names = filter(None, (ctx.profile.generator.weights, "paintings", "astronaut", "yunet"))
    return {
        "seed": ctx.profile.seed,
        "faces": FACES,
        "portraits": PORTRAITS,
        "others": OTHERS,
        "margin": MARGIN,
        "weights": {name: weights.sha256(name) for name in names},
        "version": 1,
    }


def generate_faces(ctx: Context, folder: Path) -> None:
    """Save FACES faces of the generator, some as PNG and most as JPEG."""
    import torch
    import torch.nn.functional as F

    from pipeline import images
    from stages.loaders import generator as generators

    # at its full size, like a photo, and not with the fitted head that the other stages use
    generator = generators.generator(ctx, full=True)
    random = torch.Generator().manual_seed(ctx.profile.seed)
    with torch.no_grad():
        middle = generator.map(torch.randn(4096, 512, generator=random).to(ctx.device)).mean(0)[None]
    progress = Progress("faces", FACES)
    for index in range(FACES):
        noise = torch.randn(1, 512, generator=random).to(ctx.device)
        with torch.no_grad():
            image = generator(middle + TRUNCATION * (generator.map(noise) - middle))
        face = images.to_arrays(F.interpolate(image, (SIDE, SIDE), mode="area"))[0]
        suffix = ".png" if index % 4 == 3 else ".jpg"
        (folder / f"face-{index:02d}{suffix}").write_bytes(images.encode(with_margin(face), suffix))
        progress.add(1)
    progress.close()


def with_margin(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with a mirrored border of MARGIN of its side."""
    pad = round(MARGIN * rgb.shape[0])
    return np.pad(rgb, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")


def choose_paintings(folder: Path) -> None:
    """Copy PORTRAITS paintings with a large face, from all centuries, and the OTHERS most colourful without one."""
    from models.faces.detector import YuNet, largest
    from pipeline.sources import decode

    detector = YuNet(weights.path("yunet"))
    source = weights.path("paintings")
    portraits: list[tuple[int, str]] = []
    others: list[tuple[float, str]] = []
    listed = json.loads((source / "objects.json").read_text())["objects"]
    entries = {f"{entry['objectID']}.jpg": entry for entry in listed}
    for name in sorted(entries.keys() & {path.name for path in source.glob("*.jpg")}):
        rgb = decode.read((source / name).read_bytes())
        faces = detector.detect(rgb)
        if not faces:
            others.append((float(np.ptp(rgb.astype(np.float32), axis=2).std()), name))
        elif largest(faces).box[2] >= MIN_FACE * min(rgb.shape[:2]) and largest(faces).score >= detector.score:
            portraits.append((entries[name]["objectEndDate"], name))
    portraits.sort()
    spread = np.linspace(0, len(portraits) - 1, min(PORTRAITS, len(portraits))).round().astype(int)
    for name in [portraits[i][1] for i in spread] + [name for _, name in sorted(others)[-OTHERS:]]:
        title = f"{entries[name]['artistDisplayName']} {entries[name]['title']}"
        shutil.copyfile(source / name, folder / f"{_slug(title, Path(name).stem)}.jpg")


def _slug(title: str, fallback: str) -> str:
    letters = unicodedata.normalize("NFKD", title.lower())
    plain = "".join(c if c.isascii() and c.isalnum() else "" if unicodedata.combining(c) else "-" for c in letters)
    return "-".join(filter(None, plain.split("-")))[:48].strip("-") or fallback


def _complete(folder: Path) -> bool:
    listed = json.loads((folder / DONE).read_text())["files"]
    return all((folder / name).exists() for name in listed)
