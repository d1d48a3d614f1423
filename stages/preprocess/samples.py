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

from pipeline import device, files, ours, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.locks import lock
from pipeline.progress import Progress, say

FACES, PORTRAITS, OTHERS = 11, 12, 3
SIDE = 512
TRUNCATION = 0.7
MARGIN = 0.2  # the drawn square, FFHQ-framed, gets this much mirrored border, so that alignment has work to do
MIN_FACE = 0.15  # a portrait's face is at least so wide, in widths of the painting's shorter side
DONE = ours.SAMPLES


def run(ctx: Context) -> int:
    """Fill CACHE/samples with content and style images; does nothing when they are there and still the same.

    Of what lies there only the images that its samples.json lists are removed. Raises: UserError when there are any
    others, as they would pass for samples.
    """
    folder, done, recipe = ctx.cache / "samples", ctx.cache / "samples" / DONE, _recipe(ctx)
    if is_current(ctx):
        say(f"samples: {folder} is up to date")
        return 0
    ctx = dataclasses.replace(ctx, device=device.resolve(ctx.device))
    with lock(ctx.cache, "samples"):
        _refuse_others(folder)
        files.sweep(folder)
        with files.scratch(folder / folder.name) as made:
            for name in COLLECTIONS:
                (made / name).mkdir(parents=True)
            generate_faces(ctx, made / "content")
            shutil.copyfile(weights.path("astronaut"), made / "content" / "astronaut.png")
            choose_paintings(made / "style")
            listing = sorted(str(path.relative_to(made)) for path in made.glob("*/*"))
            _refuse_others(folder)  # it took minutes
            for former in ours.samples(folder)[1]:
                former.unlink(missing_ok=True)
            # Listed first: whenever this is killed, the next run knows which images are samples.
            files.write_atomic(done, json.dumps({"recipe": recipe, "files": listing}, indent=1).encode())
            for name in listing:
                files.fsync(made / name)
                (folder / name).parent.mkdir(exist_ok=True)
                (made / name).replace(folder / name)
    say(f"samples: {len(listing)} images in {folder}")
    return 0


def is_current(ctx: Context) -> bool:
    """Whether the samples are there, made by this recipe."""
    recipe, listed = ours.samples(ctx.cache / "samples")
    return recipe == _recipe(ctx) and all(path.exists() for path in listed)


def _refuse_others(folder: Path) -> None:
    """Raises: UserError(2) when there are files that samples.json does not list, or folders that lead elsewhere."""
    listed = set(ours.samples(folder)[1])
    others = [place for place in (folder, *(folder / name for name in COLLECTIONS)) if place.is_symlink()]
    others += [
        path
        for place in (folder / name for name in COLLECTIONS)
        for path in (sorted(place.iterdir()) if place.is_dir() else ())
        if path not in listed and not path.name.startswith(".")
    ]
    if others:
        shown = ", ".join(str(path.relative_to(folder)) for path in others[:3])
        raise UserError(
            f"{folder}: {len(others)} files are none of the samples that its {DONE} lists, the first are {shown}; "
            "nothing was removed: move them elsewhere and name that folder by CONTENT= or STYLE= (--content, --style), "
            "or remove them if they are samples of a run that was cut short",
            2,
        )


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
    entries = paintings(source)
    for name in entries:
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
        shutil.copyfile(source / name, folder / f"{slug(title) or Path(name).stem}.jpg")


def paintings(source: Path) -> dict[str, Any]:
    """The files of the paintings in a folder and what its list tells of each, in order of the files' names."""
    listed = json.loads((source / "objects.json").read_text())["objects"]
    told = {f"{entry['objectID']}.jpg": entry for entry in listed}
    return {file: told[file] for file in sorted(told.keys() & {path.name for path in source.glob("*.jpg")})}


def slug(title: str) -> str:
    """A title as at most 48 letters, digits and hyphens of ASCII; "" where it has none."""
    letters = unicodedata.normalize("NFKD", title.lower())
    plain = "".join(c if c.isascii() and c.isalnum() else "" if unicodedata.combining(c) else "-" for c in letters)
    return "-".join(filter(None, plain.split("-")))[:48].strip("-")
