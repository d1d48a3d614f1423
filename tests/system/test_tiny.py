"""The tiny profile runs every stage with random weights: from pictures to shards and a few steps of training."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import images, profile
from pipeline.caches import reader
from pipeline.context import COLLECTIONS, Context
from pipeline.runner.run import run_stage
from stages.evaluate import comparison, gallery, methods
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.preprocess import chain, shards
from stages.tools import inspect, verify
from stages.train import page as train_page
from stages.train import run as train
from tests.support import html_pages

pytestmark = pytest.mark.weights  # LPIPS measures the inversion
ROOT = Path(__file__).parents[2]
COUNT = 4
RUN = """<script>alert(1)<b> "it's" & #1 100%"""  # a folder may be called so


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    torch.set_num_threads(1)
    for collection in COLLECTIONS:
        (tmp_path / collection).mkdir()
        for i in range(COUNT):
            rng = np.random.default_rng([i, *collection.encode()])
            picture = rng.integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            (tmp_path / collection / f"{collection}{i}.png").write_bytes(images.encode(picture))
    tiny = profile.load("tiny")
    few = dataclasses.replace(tiny.train, reconstruction_steps=1, stylization_steps=1)
    return Context(
        dataclasses.replace(tiny, train=few),
        cache=tmp_path / "cache",
        content=tmp_path / "content",
        style=tmp_path / "style",
        run=tmp_path / "runs" / RUN,
    )


def every_cache(ctx: Context) -> dict[str, bytes]:
    """Run the stages up to the shards: the bytes of the caches."""
    for collection in COLLECTIONS:
        for step in (step for name in chain.CACHED for step in chain.steps(name, collection, ctx)):
            done = run_stage(step, collection, ctx)
            assert done.inputs == done.cached == COUNT
    return {str(file.relative_to(ctx.cache)): file.read_bytes() for file in sorted(ctx.cache.rglob("*.h5"))}


def test_from_pictures_to_a_trained_network(ctx: Context, tmp_path: Path) -> None:
    every_cache(ctx)
    assert shards.run(ctx) == 0 and chain.unfinished(ctx) == [] and verify.run(ctx) == 0
    with reader.Cache(ctx.file("content", "latents")) as cache:
        rows = cache.rows(cache.keys(), ["latent", "lpips"])
    latents = np.stack([row["latent"] for row in rows])
    generator = generators.generator(ctx)
    assert latents.shape == (COUNT, generator.num_ws, 512) and len(np.unique(latents[:, 0, 0])) == COUNT
    assert all(0 < row["lpips"] < 2 for row in rows)
    assert "drawn as grey" not in inspect.run(ctx.file("content", "latents"), png=tmp_path / "rows.png")
    assert train.run(ctx) == 0
    log = [json.loads(line) for line in (ctx.run / "log.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in log] == ["reconstruct", "stylize"]
    assert hypernetworks.trained_hypernetwork(ctx, generator.layer_table())
    pages(ctx, tmp_path / "rows.html")
    killed_evaluation(ctx)


def pages(ctx: Context, rows: Path) -> None:
    """Every page of the run is one of its own, valid, and whole without a network; a name in it stays a name."""
    assert comparison.run(ctx, methods=methods.chosen(["hypernst"]), everything=True) == 0
    overview, sheet = gallery.draw(ctx)
    inspect.run(ctx.file("style", "aladin"), html=rows)
    written = sorted(path.name for path in ctx.run.glob("*.html"))
    assert written == ["gallery.html", "index.html", "model-card.html", "training.html"]
    evaluation = comparison.folder(ctx) / "evaluation.html"
    both = train_page.compare([ctx.run, ctx.run], rows.with_name("both.html"))
    for page in (*(ctx.run / name for name in written), evaluation, rows, both):
        assert html_pages.problems(page) == [], page
        assert "<script>" not in page.read_text()
    linked = overview.read_text()
    assert all(f'href="{name}"' in linked for name in written if name != "index.html")
    assert 'evaluation.html"' in linked and "gallery.html" in linked and linked.count("<img") > 0
    assert "checkpoint.safetensors (step 2, sha256" in linked and "0.001" in linked  # the learning rate
    assert 'href="cells/0-0.jpg"' in (ctx.run / "gallery.html").read_text() and sheet.exists()
    assert "<td" in evaluation.read_text() and "| Model |" not in evaluation.read_text()
    cells = {path: path.stat().st_mtime_ns for path in (ctx.run / "cells").iterdir()}
    gallery.draw(ctx)
    assert cells == {path: path.stat().st_mtime_ns for path in (ctx.run / "cells").iterdir()}  # nothing is drawn again


def killed_evaluation(ctx: Context) -> None:
    """`eval`, killed by SIGKILL between two pairs, goes on to the results.json of a run that was not."""
    settings = ctx.cache.with_name("four.toml")
    settings.write_text('extends = "tiny"\nname = "four"\n[eval]\ncontents = 4\nstyles = 4\n')
    whole, killed = (
        dataclasses.replace(ctx, profile=profile.load(str(settings)), run=ctx.run.with_name(name))
        for name in ("whole", "killed")
    )
    told = {"profile": settings, "cache": ctx.cache, "run": killed.run, "methods": "unstylised,adain"}
    options = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([sys.executable, "-m", "stages.cli.main", "eval", "--all", *options], cwd=ROOT)
    lines: list[str] = []
    while len(lines) < 3 and process.poll() is None:
        lines = [
            x for log in comparison.folder(killed).glob("pairs-adain-*.jsonl") for x in log.read_text().split("\n")
        ]
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL and 3 <= len(lines) < COUNT**2
    assert not (comparison.folder(killed) / "results.json").exists()
    reports = []
    for run in (whole, killed):
        assert comparison.run(run, methods=methods.chosen(["unstylised", "adain"]), everything=True) == 0
        reports.append(json.loads((comparison.folder(run) / "results.json").read_text()))
        for values in reports[-1]["methods"].values():
            assert values.pop("seconds_per_image") >= 0 and values["pairs"] == COUNT**2
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [ray]")
def test_on_ray_every_stage_leaves_the_same_bytes(ctx: Context, tmp_path: Path) -> None:
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "."), "OMP_NUM_THREADS": "1"}},
    )
    try:
        assert every_cache(dataclasses.replace(ctx, cache=tmp_path / "ray", engine="ray")) == every_cache(ctx)
    finally:
        ray.shutdown()
