"""Which pictures the optimisation works on: content is rendered from its latent, a style is not."""

import dataclasses

import pytest

from pipeline import profile, weights
from pipeline.context import Context
from pipeline.runner.recipe import difference
from stages.loaders import inversion as networks
from stages.preprocess import chain, latents


@pytest.fixture
def ctx(monkeypatch: pytest.MonkeyPatch) -> Context:
    """The portable profile; its weights are only named."""
    monkeypatch.setattr(weights, "sha256", lambda name: f"sha of {name}")
    monkeypatch.setattr(weights, "names", lambda name: [])
    return Context(profile.load("portable"))


def stepping(ctx: Context, steps: int) -> Context:
    inverter = dataclasses.replace(ctx.profile.inverter, steps=steps)
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, inverter=inverter))


def test_more_optimisation_makes_content_stale_and_leaves_styles_as_they_are(ctx: Context) -> None:
    before, after = (
        {name: chain.steps("latents", name, c)[0].recipe() for name in ("content", "style")}
        for c in (stepping(ctx, 12), stepping(ctx, 20))
    )
    assert difference(before["content"], after["content"]) == "params.inverter.steps 12 -> 20"
    assert before["style"] == after["style"] and before["style"]["params"]["inverter"]["steps"] == 0


@pytest.mark.parametrize("collection", ["content", "style"])
def test_a_stage_and_a_single_picture_optimise_alike(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    taken = []

    def inversion(ctx: Context) -> None:
        taken.append(ctx.profile.inverter.steps)
        raise StopIteration  # what follows is the networks' business

    monkeypatch.setattr(networks, "inversion", inversion)
    with pytest.raises(StopIteration):
        latents.spec(ctx, collection).open(ctx)
    assert ctx.profile.inverter.steps and taken == [ctx.profile.inverter.steps if collection == "content" else 0]
