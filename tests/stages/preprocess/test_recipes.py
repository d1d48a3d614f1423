"""A change of a profile's key makes stale exactly what it decides, and the same weights under another name nothing."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline import profile, weights
from pipeline.caches.reader import Cache
from pipeline.context import COLLECTIONS, Context
from pipeline.profile import Profile
from pipeline.runner.recipe import change
from stages.preprocess import chain, shards
from tests.support.caches import fill_in_place_of_networks

pytestmark = pytest.mark.weights  # the latents' recipe holds LPIPS
FILE = "a file"  # stands for weights that the test makes
LATENTS, PARSES, MASKS, CODES, SHARDS = {"latents"}, {"parse"}, {"masks"}, {"aladin-codes"}, {"shards"}
# key -> another value, and the stages that it decides in the tiny profile, whose networks are drawn by the seed
DECIDES: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", set()),
    "seed": (1, LATENTS | PARSES | CODES),
    "generator.kind": ("mobilestylegan", LATENTS),
    "generator.size": (64, LATENTS),
    "generator.weights": (FILE, LATENTS),
    "generator.head": (FILE, set()),
    "align.size": (64, LATENTS | CODES | SHARDS),
    "align.source_size": (128, {"align"}),
    "align.detector": ("yunet", {"align"}),
    "align.jpeg_quality": (90, {"align"}),
    "align.no_face": ("reject", {"align"}),
    "inverter.weights": (FILE, LATENTS),
    "inverter.iterations": (3, set()),
    "inverter.steps": (3, set()),
    "parser.kind": ("farl-lapa", PARSES | MASKS),
    "parser.weights": (FILE, PARSES),
    "parser.hair": ((), MASKS),
    "parser.face": ((), MASKS),
    "aladin.kind": ("vgg16", CODES),
    "aladin.weights": (FILE, CODES),
    "aladin.patch": (16, CODES),
    "aladin.patches": (3, CODES),
    "aladin.coverage": (0.8, CODES),
    "aladin.relaxed": (0.4, CODES),
    "aladin.input_size": (64, CODES),
    "aladin.whole_size": (64, CODES),
    "shards.max_mb": (2.0, SHARDS),
    "shards.test_fraction": (0.5, SHARDS),
    "editing.directions": (("mine.safetensors",), set()),
    "render.palette": (False, set()),
    "render.details": (0.0, set()),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("recipes")
    ctx = Context(profile.load("tiny"), cache=base / "cache", content=base / "content", style=base / "style")
    for collection in COLLECTIONS:
        fill_in_place_of_networks(ctx, collection, 3)
    shards.run(ctx)
    save_file(
        {"noises.noise_0": np.zeros(1, np.float32), "latent_avg": np.zeros(1, np.float32)}, base / "a.safetensors"
    )
    return ctx


def changed(ctx: Context, key: str, value: object) -> Context:
    section, _, name = key.rpartition(".")
    inner = dataclasses.replace(getattr(ctx.profile, section), **{name: value}) if section else value
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, **{section or key: inner}))


def stale(ctx: Context) -> set[str]:
    found = set() if shards.is_current(ctx) else {"shards"}
    for collection in COLLECTIONS:
        for step in (step for name in chain.CACHED for step in chain.steps(name, collection, ctx)):
            with Cache(ctx.file(collection, step.output)) as cache:
                found |= {step.name} if change(cache.provenance, step) else set()
    return found


def keys() -> list[str]:
    names = []
    for field in dataclasses.fields(Profile):
        inner = dataclasses.fields(field.type) if dataclasses.is_dataclass(field.type) else ()
        names += [f"{field.name}.{one.name}" for one in inner] or [field.name]
    return names


@pytest.mark.parametrize("key", keys())
def test_a_key_makes_stale_exactly_what_it_decides(made: Context, key: str) -> None:
    if key.startswith(("train.", "eval.", "baselines.")):  # trainings and evaluations tell their own
        value = getattr(getattr(made.profile, key.split(".")[0]), key.split(".")[1])
        other, decided = (value + 1 if isinstance(value, int | float) else f"{value}x"), set()
    else:
        other, decided = DECIDES[key]
    other = f"{made.cache.parent}/a.safetensors" if other == FILE else other
    assert stale(made) == set()
    assert stale(changed(made, key, other)) == decided


def test_what_needs_no_drawing_does_not_know_the_seed(tmp_path: Path) -> None:
    def recipes(ctx: Context) -> dict[str, Any]:
        return {s.name: s.recipe() for name in chain.CACHED for s in chain.steps(name, "content", ctx)}

    ctx = Context(profile.load("portable"))
    before, after = recipes(ctx), recipes(changed(ctx, "seed", 1))
    assert {name for name in before if before[name] != after[name]} == {"aladin-codes"}
    for key in ("inverter.weights", "parser.weights", "aladin.weights", "generator.head"):
        section, _, name = key.rpartition(".")
        place = weights.path(getattr(getattr(ctx.profile, section), name))
        copied = changed(ctx, key, str(shutil.copyfile(place, tmp_path / f"{section}.safetensors")))
        for collection in COLLECTIONS:
            for own in chain.CACHED:
                for one, two in zip(*(chain.steps(own, collection, c) for c in (ctx, copied)), strict=True):
                    assert change(one.recipe(), two) == "", key
