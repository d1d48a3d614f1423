"""What `inspect` adds to rows to draw them: the images of latents, the nearest styles, the page."""

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import profile
from pipeline.caches.reader import Cache
from pipeline.context import Context
from pipeline.errors import UserError
from stages.styles import blocks

NEAREST = 3  # styles beside a row


def render_latents(rows: Mapping[str, dict[str, Any]]) -> str:
    """Give rows with a latent the image it generates. Returns what to add to the report where that is not possible."""
    having = [row for row in rows.values() if "latent" in row]
    if not having:
        return ""
    try:
        generated = generate(having[0]["made"], np.stack([row["latent"] for row in having]))
    except UserError as fault:
        return f"\n\nlatents are drawn as grey levels: {fault}"
    for row, image in zip(having, generated, strict=True):
        row["generated"] = image
    return ""


def generate(made: Mapping[str, Any], latents: np.ndarray) -> np.ndarray:
    """Images, RGB u8 [N, H, W, 3], of latents [N, L, D].

    `made` is the provenance of the latents' file; it names the generator.
    Raises: UserError when its profile or weights are not on this machine, or the generator takes other latents.
    """
    import torch

    from pipeline import images
    from stages.loaders import generator as generators

    settings = made["params"].get("generator")
    # a cache holds the settings of its generator, also those of a profile of the user's own; shards hold only its name
    chosen = profile.load("portable" if settings else made["profile"])
    if settings:
        chosen = dataclasses.replace(chosen, generator=profile.Generator(**settings))
    generator = generators.generator(Context(chosen))
    try:
        with torch.inference_mode():
            rendered = [images.to_arrays(generator(torch.from_numpy(w[None].copy())))[0] for w in latents]
    except (ValueError, RuntimeError) as error:
        raise UserError(f"its generator cannot draw latents {list(latents.shape[1:])}: {error}") from error
    return np.stack(rendered)


def add_nearest(rows: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Give rows with a code the NEAREST styles by it, without the row itself: (key, cosine, image)."""
    having = {key: row for key, row in rows.items() if "image_code" in row}
    files = folder / "aladin.h5", folder / "images.h5"
    if not having or not all(file.exists() for file in files):
        return
    queries = np.stack([row["image_code"] for row in having.values()])
    found = blocks.nearest(blocks.of_cache(files[0]), queries, NEAREST + 1)
    with Cache(files[1]) as images:
        for (key, row), styles in zip(having.items(), found, strict=True):
            others = [style for style in styles if style.key != key][:NEAREST]
            shown = images.rows([style.key for style in others], ["image"])
            row["nearest"] = [(s.key, s.likeness, r["image"]) for s, r in zip(others, shown, strict=True)]


def page(path: Path, text: str, strips: Mapping[str, np.ndarray]) -> bytes:
    """The report as a page, with an image per row."""
    from pipeline import images
    from pipeline.reports import pages

    rows = [
        {
            "key": key,
            "data": f"data:image/png;base64,{base64.b64encode(images.encode(strip)).decode()}",
            "width": strip.shape[1],
            "height": strip.shape[0],
        }
        for key, strip in strips.items()
    ]
    return pages.render("inspect", title=str(path), text=text, rows=rows)
