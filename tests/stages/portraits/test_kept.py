"""Rows of single portraits: found by content and recipe, checked and cleaned like other caches, never in the way."""

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import images, ours, profile
from pipeline.context import Context
from pipeline.runner.spec import Item
from stages.portraits import kept
from stages.portraits.kept import KeptPortraits
from stages.portraits.portrait import Portrait, one
from stages.portraits.reader import PortraitReader
from stages.preprocess import align
from stages.tools import clean, explain, verify

pytestmark = pytest.mark.weights  # LPIPS measures the inversion


def png(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return images.encode(rng.integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1))


def read(ctx: Context, collection: str = "content", name: str = "me.png") -> tuple[Portrait, list[str]]:
    """A portrait, and the stages whose networks were loaded for it."""
    reader = PortraitReader(ctx, KeptPortraits(ctx))
    found = reader(png(), name, collection)
    return found, [recipe.split('"stage": "')[1].split('"')[0] for recipe in reader.workers]


def test_only_what_is_stale_damaged_or_missing_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = Context(profile.load("tiny"), cache=tmp_path / "cache")
    first, computed = read(ctx)
    assert computed == ["align", "parse", "masks", "latents", "aladin-codes"]
    again, computed = read(ctx, name="other name.png")
    assert computed == [] and again.key != first.key
    for field in dataclasses.fields(first)[1:6]:
        assert np.array_equal(getattr(again, field.name), getattr(first, field.name)), field.name
    [folder] = ours.portraits(ctx.cache)
    assert verify.run(ctx) == 0

    aladin = dataclasses.replace(ctx.profile.aladin, patches=3)
    other = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, aladin=aladin))
    kept = {"stage": "portraits", "portraits": 1}
    assert explain.explain(None, ctx)[-1] == {**kept, "stale": {}}
    [(why, count)] = explain.explain(None, other)[-1]["stale"].items()
    assert (
        count == 1
        and why.startswith("aladin-codes: ")
        and "patches 2 -> 3" in why
        and why in explain.report(explain.explain(None, other))
    )
    assert read(other)[1] == ["aladin-codes"]
    assert read(ctx)[1] == ["aladin-codes"]
    (folder / "masks.h5").write_bytes(b"cut")
    capsys.readouterr()
    assert read(ctx)[1] == ["masks", "aladin-codes"]  # and what is made from it
    assert "computed again" in capsys.readouterr().err
    (folder / "latents.h5").write_bytes(b"cut")
    (folder / "mine.h5").write_bytes(b"put there by hand")
    assert verify.run(ctx) == 1
    assert verify.run(ctx, repair=True) == 0
    left = {"latents.h5.bad": b"cut", "mine.h5": b"put there by hand"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left
    read(ctx)
    KeptPortraits(ctx).forget(hashlib.sha256(png()).hexdigest())
    assert [path.name for path in folder.iterdir()] == ["mine.h5"]
    (folder / "mine.h5").unlink()
    read(ctx)
    assert clean.run(ctx.cache) == 0 and list(ctx.cache.iterdir()) == []


def test_of_too_many_the_one_goes_that_was_not_used_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    ctx = Context(profile.load("tiny"), cache=tmp_path / "cache")
    store = KeptPortraits(ctx)
    steps = [align.spec(ctx)]
    row = steps[0].check(dict(one(steps[0].open(ctx), Item("a", {"source": png()}, "a.png"))), "a.png")
    for number, name in enumerate(("0" * 64, "1" * 64)):
        store.put(name, steps, None, steps[0], row)
        os.utime(store.place(name, steps, None), (number, number))
    assert store.rows("0" * 64, steps, None)
    store.put("2" * 64, steps, None, steps[0], row)
    assert [bool(store.rows(name * 64, steps, None)) for name in "012"] == [True, False, True]


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    ctx = Context(profile.load("tiny"), cache=tmp_path / "cache")
    assert read(ctx)[0].latent.shape == (8, 512)
    assert capsys.readouterr().err.count("portraits are not kept: ") == 1


def test_a_style_has_no_latent(tmp_path: Path) -> None:
    ctx = Context(profile.load("tiny"), cache=tmp_path / "cache")
    style, computed = read(ctx, "style")
    assert style.latent.shape == (0, 512) and "latents" not in computed
    assert read(ctx)[1] == ["latents"]  # the same file as content: what it lacks is computed
