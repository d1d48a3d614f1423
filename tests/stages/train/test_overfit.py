"""The trainer can learn: two portraits and two styles, overfitted by the portable profile's own generators."""

import dataclasses
from pathlib import Path

import pytest

from pipeline import profile
from pipeline.context import Context
from stages.loaders import generator as generators
from stages.preprocess import aladin_codes, align, latents, masks, samples, shards
from stages.train import page, validate
from stages.train import run as train
from stages.train.state import build, start


@pytest.mark.slow
@pytest.mark.weights
def test_two_portraits_and_two_styles_are_overfitted_in_300_steps(tmp_path: Path) -> None:
    base = profile.load("portable")
    settings = dataclasses.replace(
        base.train,
        weights="",
        reconstruction_steps=200,
        stylization_steps=100,
        start_layer=3,
        learning_rate=1e-3,
        lambda2=0.0,
        content=0.25,
        ema=0.9,
        reconstruction_every=99,
        validate_every=100,
    )
    chosen = dataclasses.replace(
        base,
        train=settings,
        inverter=dataclasses.replace(base.inverter, steps=0),
        shards=dataclasses.replace(base.shards, test_fraction=0.0),
        render=dataclasses.replace(base.render, palette=False, details=0.0),  # these would help before any training
    )
    cache = tmp_path / "cache"
    ctx = Context(
        chosen,
        cache=cache,
        content=cache / "samples" / "content",
        style=cache / "samples" / "style",
        run=tmp_path / "run",
        limit=2,
    )
    for stage in (samples, align, latents, masks, aladin_codes, shards):
        assert stage.run(ctx) == 0
    generator = generators.generator(ctx)
    fresh = start(ctx, build(ctx, generator), generator, False, train.ProcessGroup())
    ctx.run.mkdir()
    validate.Grid(ctx, generator, fresh.ema).draw(0)
    train.run(ctx, shipped=False)
    before, _, reconstructed, stylised = page.validation(ctx.run)
    print(before, reconstructed, stylised, sep="\n")
    assert reconstructed["reconstruction_lpips_alex"] <= 0.4 * before["reconstruction_lpips_alex"]
    assert stylised["sifid_64"] <= 0.5 * before["sifid_64"]
