"""The evaluation: its numbers on pictures whose scores are known, and that it resumes without measuring twice."""

import dataclasses
import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import images, profile, weights
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.shards import writer
from pipeline.shards.writer import split_of
from stages.evaluate import comparison, metrics
from stages.evaluate.methods import METHODS, Apply, Method, baseline
from stages.portraits.portrait import Portrait, held_out
from tests.support.weights_import import own_cache

UNSTYLISED = {"unstylised": METHODS["unstylised"]}


def portrait(key: str, seed: int) -> Portrait:
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    codes = rng.standard_normal((4, 256)).astype(np.float32)
    region, latent = np.zeros((256, 256), np.uint8), np.zeros((18, 512), np.float32)
    return Portrait(key, image, region, latent, codes, np.ones(3, bool))


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    def cached(
        ctx: Context, collection: str, limit: int | None, choose: Callable[[Context, Sequence[str]], list[str]]
    ) -> Iterator[Portrait]:
        keys = choose(ctx, [f"{collection}-{i}" for i in range(30)])[:limit]
        yield from (portrait(key, 10 * len(collection) + int(key.rpartition("-")[2])) for key in keys)

    monkeypatch.setattr(comparison, "cached", cached)
    return Context(profile.load("tiny"), cache=tmp_path / "cache", run=tmp_path / "runs" / "one")


@pytest.mark.weights
def test_the_content_itself_and_the_style_itself_score_as_they_must(ctx: Context) -> None:
    calls: list[str] = []

    def thief(ctx: Context) -> Apply:
        def method(content: Portrait, style: Portrait) -> np.ndarray:
            calls.append(style.key)
            return style.image

        return method

    methods = {**UNSTYLISED, "thief": Method("thief", thief)}
    assert comparison.run(ctx, methods=methods) == 0
    out = comparison.folder(ctx)
    assert out == ctx.run.parent / "eval" / "one"
    results = json.loads((out / "results.json").read_text())
    plain, stolen = results["methods"]["unstylised"], results["methods"]["thief"]
    pairs = min(2, ctx.profile.eval.contents) * min(2, ctx.profile.eval.styles)
    assert plain["lpips_alex"] == plain["lpips_vgg"] == 0 and plain["sifid_64"] > 0 and plain["pairs"] == pairs
    assert stolen["sifid_64"] == pytest.approx(0, abs=1e-4) and stolen["sifid_192"] == pytest.approx(0, abs=1e-4)
    gap = results["differences"]["thief"]["unstylised"]["sifid_192"]
    assert gap["mean"] == pytest.approx(stolen["sifid_192"] - plain["sifid_192"], abs=1e-4) and gap["interval"][1] < 0
    heads = (out / "table.md").read_text().splitlines()[0]
    first, second = "SIFID (FID Inception, Conv2d_4a, 192)", "SIFID (FID Inception, Conv2d_2b, 64)"
    assert 0 < heads.index(first) < heads.index(second)
    assert results["metrics"]["sifid_192"] == first and results["metrics"]["sifid_64"] == second
    assert stolen["lpips_alex"] > 0.05 and set(results["metrics"]["weights"]) == set(metrics.METRIC_WEIGHTS)
    assert "| thief |" in (out / "table.md").read_text()
    assert "cells/thief-0-0.jpg" in (out / "evaluation.html").read_text()

    made = len(calls)
    assert comparison.run(ctx, methods=methods) == 0 and len(calls) == made  # nothing has changed
    (out / "results.json").unlink()
    (log,) = out.glob("pairs-thief-*.jsonl")
    log.write_text(log.read_text()[:-30])  # killed inside the last line
    assert comparison.run(ctx, methods=methods) == 0 and len(calls) == made + 2  # a warm-up and the one lost pair
    assert without_seconds(json.loads((out / "results.json").read_text())) == without_seconds(results)

    made = len(calls)
    assert comparison.run(ctx, methods=methods | {"twin": Method("twin", thief)}) == 0
    assert len(calls) == made + 1 + pairs  # the new method alone, with its warm-up
    twins = json.loads((out / "results.json").read_text())
    assert twins["methods"]["twin"]["sifid_64"] == twins["methods"]["thief"]["sifid_64"] == stolen["sifid_64"]
    assert twins["differences"]["twin"]["thief"]["sifid_64"] == {"mean": 0, "interval": [0, 0]}


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    """A report but for the times, which differ where a pair was measured again."""
    methods = {n: {k: v for k, v in m.items() if k != "seconds_per_image"} for n, m in results["methods"].items()}
    return {**results, "methods": methods}


def test_empty_caches_are_told(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "cached", lambda *_: iter(()))
    with pytest.raises(UserError, match=r"0 of 2 content portraits are held out .* use --all"):
        comparison.run(ctx)
    with pytest.raises(UserError, match="holds no content portraits; run `hypernst align`"):
        comparison.run(ctx, everything=True)


@pytest.mark.parametrize("everything", [False, True])
def test_only_held_out_portraits_are_measured_in_an_order_that_follows_from_the_seed(
    ctx: Context, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(seed: int) -> dict[str, Any]:
        seeded = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, seed=seed))
        assert comparison.run(seeded, methods=UNSTYLISED, everything=everything) == 0
        return json.loads((comparison.folder(ctx) / "results.json").read_text())

    monkeypatch.setattr(comparison, "Metrics", Level)
    monkeypatch.setattr(comparison.weights, "sha256", lambda name: name)
    seen = [measured(seed) for seed in (0, 0, 1, 2)]
    keys = [tuple(result["pictures"]["contents"] + result["pictures"]["styles"]) for result in seen]
    assert keys[0] == keys[1] and len(set(keys)) > 1
    assert [result["split"]["seed"] for result in seen] == [0, 0, 1, 2]
    assert seen[0]["split"]["name"] == ("all" if everything else "test")
    held = [split_of(key, ctx.profile.shards.test_fraction) == "test" for chosen in keys for key in chosen]
    assert all(held) != everything


def test_shards_with_a_smaller_test_split_count(tmp_path: Path) -> None:
    small = Context(profile.load("tiny"), cache=tmp_path)
    keys = [f"k{i}" for i in range(200)]
    assert set(held_out(small, keys)) == {key for key in keys if split_of(key, 0.25) == "test"}
    small.shards.mkdir(parents=True)
    writer.write(small.shards, [], 10**6, {"params": {"test_fraction": 0.1}})
    assert set(held_out(small, keys)) == {key for key in keys if split_of(key, 0.1) == "test"}


def test_too_few_are_told(ctx: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    many = dataclasses.replace(ctx.profile.eval, contents=50, styles=50)
    ctx = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, eval=many))
    monkeypatch.setattr(comparison, "Metrics", Level)
    monkeypatch.setattr(comparison.weights, "sha256", lambda name: name)
    assert comparison.run(ctx, methods=UNSTYLISED) == 0
    assert "of 50 style portraits are held out from training (shards.test_fraction = 0.25)" in capsys.readouterr().err


class Level:
    """In place of the metrics' networks: every measure is the mean level of the result."""

    def __init__(self, ctx: Context) -> None:
        pass

    def summary(self, image: np.ndarray) -> None:
        pass

    features = summary

    def compare(self, image: np.ndarray, content: None, style: None) -> dict[str, float]:
        return dict.fromkeys(metrics.METRICS, float(image.mean()))


@pytest.fixture
def level(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """`ctx` with a grid of 3 x 3, where every measure is the mean level of the result."""
    monkeypatch.setattr(comparison, "Metrics", Level)
    monkeypatch.setattr(comparison.weights, "sha256", lambda name: name)
    larger = dataclasses.replace(ctx.profile.eval, contents=3, styles=3)
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, eval=larger))


def results(ctx: Context) -> dict[str, Any]:
    return json.loads((comparison.folder(ctx) / "results.json").read_text())


def test_optimising_methods_take_a_budget_that_can_grow(level: Context, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[tuple[str, str]] = []

    def slow(ctx: Context) -> Apply:
        def method(content: Portrait, style: Portrait, on_step: Callable[[int, int], None]) -> np.ndarray:
            made.append((content.key, style.key))
            for i in range(3):
                on_step(i + 1, 3)
            return style.image

        return method

    methods = {**UNSTYLISED, "slow": Method("Slow", slow, optimises=True)}
    assert comparison.run(level, methods=methods) == 0 and not made
    assert results(level)["not_measured"]["slow"].endswith("use `--budget N` to measure N pairs")
    assert "| Slow | not measured: it optimises each pair" in (comparison.folder(level) / "table.md").read_text()
    assert comparison.run(level, methods=methods, budget=1) == 0
    (row,) = (x for x in (comparison.folder(level) / "table.md").read_text().splitlines() if x.startswith("| Slow |"))
    assert " to " not in row and "| 1 |" in row  # one pair has no interval
    for budget in (2, 5, 2):
        assert comparison.run(level, methods=methods, budget=budget) == 0
        found = results(level)
        assert found["methods"]["slow"]["pairs"] == budget and found["methods"]["unstylised"]["pairs"] == 9
        contents, styles = (found["pictures"][name] for name in ("contents", "styles"))
        assert made[:3] == [(contents[i], styles[i]) for i in range(len(made[:3]))] and len(set(made)) == len(made)
    copied = dataclasses.replace(level, profile=dataclasses.replace(level.profile, name="copy"))
    assert comparison.run(copied, methods=methods, budget=2) == 0
    assert len(made) == 5  # each pair once, without a warm-up, and a profile's name decides nothing
    first = [(contents[i], styles[i]) for i in range(2)]
    levels = {
        p.key: float(p.image.mean()) for c in ("content", "style") for p in comparison._portraits(level, c, False)
    }
    gap = np.mean([levels[s] - levels[c] for c, s in first])
    assert found["differences"]["slow"]["unstylised"]["lpips_alex"]["mean"] == pytest.approx(gap, abs=1e-4)
    capsys.readouterr()


def test_other_latents_and_settings_measure_only_what_reads_them(
    level: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def method(name: str) -> Callable[[Context], Apply]:
        return lambda ctx: lambda content, style: made.append(name) or style.image  # type: ignore[func-returns-value]

    methods = {"images": Method("a", method("images"), plain=True), "all": Method("b", method("all"))}

    def again(ctx: Context = level) -> set[str]:
        made.clear()
        assert comparison.run(ctx, methods=methods) == 0
        return set(made)

    assert again() == {"images", "all"} and again() == set()
    render = dataclasses.replace(level.profile.render, details=0.9)
    assert again(dataclasses.replace(level, profile=dataclasses.replace(level.profile, render=render))) == {"all"}
    for field, expected in (("latent", {"all"}), ("image", {"images", "all"})):
        cached = comparison.cached

        def changed(*args: Any, field: str = field, cached: Any = cached) -> Iterator[Portrait]:
            return (dataclasses.replace(p, **{field: getattr(p, field) + 1}) for p in cached(*args))

        monkeypatch.setattr(comparison, "cached", changed)
        assert again() == expected


def test_what_cannot_run_is_told_and_never_a_number(
    level: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache(tmp_path / "weights", monkeypatch)

    def broken(*_: object) -> None:
        raise ValueError("not a network:\n  1 of 2 tensors are missing")

    names = ("sae", "gatys", "artflow", "artflow-wct", "pama", "sanet", "contraast")
    methods = {**UNSTYLISED, **{n: METHODS[n] for n in names}, "odd": baseline("Odd", broken)}
    with weights.no_fetching():
        assert comparison.run(level, methods=methods, budget=1) == 0
    found = results(level)
    assert list(found["methods"]) == ["unstylised"] and set(found["not_measured"]) == {*names, "odd"}
    told = found["not_measured"]
    assert told["odd"] == "not a network: 1 of 2 tensors are missing; import the published file again"
    assert "`hypernst weights import FILE --as sae`" in told["sae"]
    assert "hypernst weights fetch adain-vgg19" in told["sanet"]
    assert "likewise contraast-decoder, contraast-transformer; or `make" in told["contraast"]
    trainable = {name for name in names if told[name].endswith(f"or `make train-baseline METHOD={name}`")}
    assert trainable == {"sae", "artflow", "pama", "sanet", "contraast"}
    assert "gatys-vgg19" not in told["gatys"] and "artflow-adain-portrait" in told["artflow"]
    table = (comparison.folder(level) / "table.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if "not measured" in line}
    assert len(rows) == 8 and all(line.count("|") == table.splitlines()[0].count("|") for line in rows.values())
    assert all("| – | – | – | – | – |" in line for line in rows.values())
    assert rows["SANet"].endswith("| yes | no |") and rows["Gatys"].endswith("| no | no |")
    page = (comparison.folder(level) / "evaluation.html").read_text()
    assert page.count('<td class="reason" colspan="6">not measured: ') == 8  # all columns of numbers


TOY = '''
import torch


class Toy:
    """Mixes the images themselves."""

    def to(self, device):
        return self

    def __call__(self, content, style, *, alpha=1.0):
        return torch.lerp(content, style, alpha)
'''


def test_a_newcomer_adds_a_method_by_one_file_and_one_line(level: Context, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    scope = runpy.run_path(str(tmp_path / "toy.py"))
    line = {"toy": baseline("Toy", scope["Toy"])}
    assert comparison.run(level, methods={**UNSTYLISED, **line}) == 0
    whole = results(level)["methods"]["toy"]["lpips_alex"]
    cells = comparison.folder(level) / "cells"
    ends = [images.decode((cells / f"toy-strength-{k}.jpg").read_bytes()).astype(float) for k in (0, 4)]
    faces, styles = (comparison._portraits(level, name, False) for name in COLLECTIONS)
    for end, portrait in zip(ends, (faces[0], styles[0]), strict=True):
        assert np.abs(end - portrait.image).mean() < 12
    assert "toy-strength-2.jpg" in (comparison.folder(level) / "evaluation.html").read_text()
    assert comparison.run(level, methods={**UNSTYLISED, **line}, strength=0.0) == 0
    none = results(level)
    assert none["not_measured"]["unstylised"].startswith("it has no strength")
    assert none["methods"]["toy"]["lpips_alex"] == pytest.approx(np.mean([f.image.mean() for f in faces]), abs=1e-3)
    assert whole == pytest.approx(np.mean([s.image.mean() for s in styles]), abs=1e-3)
