"""The run's overview, index.html: what its pages hold, which weights it has, its settings. The model card beside it."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from pipeline import files, weights
from pipeline.context import Context
from pipeline.profile import Profile
from pipeline.reports import pages
from stages.evaluate import methods
from stages.evaluate.comparison_page import folder
from stages.loaders import hypernetwork

INDEX, GALLERY, TRAINING, EVALUATION, MODEL_CARD = (
    f"{name}.html" for name in ("index", "gallery", "training", "evaluation", "model-card")
)
PLAIN = 4  # columns of the gallery before its styles
STRIP = 8  # its images that the overview shows


def write(ctx: Context) -> Path:
    """Write the overview of the run and the model card from what is there. Returns the overview's path."""
    page = ctx.run / INDEX
    files.write_atomic(
        page,
        pages.render(
            "index",
            run=ctx.run.name,
            summary="A HyperNST run: what it made, what was measured, and how it was set up.",
            gallery=GALLERY,
            strip=_strip(ctx.run),
            cards=_cards(ctx, page),
            facts=_facts(ctx),
            logdir=shlex.quote(str(ctx.run)),
            profile=ctx.profile.name,
            settings=(settings := _settings(ctx.profile)),
            changed=any(row["changed"] for rows in settings.values() for row in rows),
        ),
    )
    return page


def cell(row: int | str, column: int) -> str:
    """The file of a cell of the gallery, as seen from the run's folder; of a style where `row` is "style"."""
    return f"cells/{row}-{column}.jpg"


def _cards(ctx: Context, page: Path) -> list[dict[str, str]]:
    """The pages that are there: file, title and what each holds."""
    evaluation = folder(ctx) / EVALUATION
    offered = [
        (ctx.run / GALLERY, "Gallery", "Portraits in every style, and with another style per region."),
        (evaluation, "Evaluation", "LPIPS, SIFID and seconds beside other methods, with the images."),
        (ctx.run / TRAINING, "Training", "Losses, measures and held-out portraits over the steps."),
    ]
    offered += [
        (page, f"Training of {page.parent.name}", "A method to compare with: losses and held-out portraits.")
        for page in sorted((ctx.run / methods.TRAINED).glob(f"*/{TRAINING}"))
    ]
    card = _write_model_card(ctx)
    if card:
        offered.append((card, "Model card", "The shipped weights: data, figures, what falls short, licences."))
    return [
        {"file": pages.relative(path, page), "title": title, "text": text}
        for path, title, text in offered
        if path.exists()
    ]


def _write_model_card(ctx: Context) -> Path | None:
    """The model card of the shipped weights as a page; None where the card is not there."""
    source, page = weights.SHIPPED.parent / "README.md", ctx.run / MODEL_CARD
    if not source.exists():
        return None
    text = pages.markdown(source.read_text())
    files.write_atomic(page, pages.render("model-card", home=INDEX, run=ctx.run.name, text=text))
    return page


def _strip(run: Path) -> list[dict[str, str]]:
    """Images of the gallery: another portrait in another style each."""
    offered = ((cell(i, PLAIN + i), f"portrait {i + 1} in style {i + 1}") for i in range(STRIP))
    shown = run / GALLERY
    return [{"file": file, "alt": alt} for file, alt in offered if shown.exists() and (run / file).exists()]


def _facts(ctx: Context) -> dict[str, str]:
    return {
        "Weights": hypernetwork.origin(ctx),
        "Generator": ", ".join(filter(None, (ctx.profile.generator.weights, ctx.profile.generator.head)))
        or "untrained",
        "Caches": str(ctx.cache),
    }


def _settings(profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """Every setting by section: its name, its value, and whether it differs from the portable profile's."""
    portable = Profile(name=profile.name)
    sections: dict[str, list[dict[str, Any]]] = {"general": []}
    for field in dataclasses.fields(profile):
        value, usual = getattr(profile, field.name), getattr(portable, field.name)
        if dataclasses.is_dataclass(value):
            sections[field.name] = [_setting(name, getattr(value, name), getattr(usual, name)) for name in vars(value)]
        elif field.name != "name":
            sections["general"].append(_setting(field.name, value, usual))
    return sections


def _setting(name: str, value: Any, usual: Any) -> dict[str, Any]:
    text = ", ".join(value) if isinstance(value, tuple) else value if isinstance(value, str) else json.dumps(value)
    return {"name": name, "value": text or "-", "changed": value != usual}
