"""The evaluation: its numbers on pictures whose scores are known, and that it resumes without measuring twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply.portrait import Portrait
from stages.evaluate import comparison, metrics
from stages.evaluate.methods import Method, unstylised


def portrait(key: str, seed: int) -> Portrait:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    codes = rng.standard_normal((4, 256)).astype(np.float32)
    region, latent = np.zeros((256, 256), np.uint8), np.zeros((18, 512), np.float32)
    return Portrait(key, image, region, latent, codes, np.ones(3, bool))


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    def cached(ctx: Context, collection: str, limit: int | None = None) -> Iterator[Portrait]:
        yield from [portrait(f"{collection}-{i}", 10 * len(collection) + i) for i in range(2)][:limit]

    monkeypatch.setattr(comparison, "cached", cached)
    return Context(profile.load("tiny"), cache=tmp_path / "cache", run=tmp_path / "runs" / "one")


@pytest.mark.weights
def test_the_content_itself_and_the_style_itself_score_as_they_must(ctx: Context) -> None:
    calls: list[str] = []

    def thief(ctx: Context) -> Method:
        def method(content: Portrait, style: Portrait) -> np.ndarray:
            calls.append(style.key)
            return style.image

        return method

    methods = {"unstylised": unstylised, "thief": thief}
    assert comparison.run(ctx, methods=methods) == 0
    out = comparison.folder(ctx)
    assert out == ctx.run.parent / "eval" / "one"
    results = json.loads((out / "results.json").read_text())
    plain, stolen = results["methods"]["unstylised"], results["methods"]["thief"]
    pairs = min(2, ctx.profile.eval.contents) * min(2, ctx.profile.eval.styles)
    assert plain["lpips_alex"] == plain["lpips_vgg"] == 0 and plain["sifid_64"] > 0 and plain["pairs"] == pairs
    assert stolen["sifid_64"] == pytest.approx(0, abs=1e-4) and stolen["sifid_192"] == pytest.approx(0, abs=1e-4)
    assert stolen["lpips_alex"] > 0.05 and set(results["metrics"]["weights"]) == set(metrics.METRIC_WEIGHTS)
    assert "| thief |" in (out / "table.md").read_text() and "cells/thief-0-0.jpg" in (out / "index.html").read_text()

    made = len(calls)
    assert comparison.run(ctx, methods=methods) == 0 and len(calls) == made  # nothing has changed
    (out / "results.json").unlink()
    (log,) = out.glob("pairs-*.jsonl")
    log.write_text(log.read_text()[:-30])  # killed inside the last line
    assert comparison.run(ctx, methods=methods) == 0 and len(calls) == made + 2  # a warm-up and the one lost pair
    assert json.loads((out / "results.json").read_text())["methods"]["thief"]["sifid_64"] == stolen["sifid_64"]


def test_empty_caches_are_told(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "cached", lambda *_: iter(()))
    with pytest.raises(UserError, match="0 contents and 0 styles"):
        comparison.run(ctx)
