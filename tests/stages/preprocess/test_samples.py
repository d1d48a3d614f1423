"""From sample pictures to region masks, on a small selection of the real paintings."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import profile, weights
from pipeline.caches import reader
from pipeline.context import Context
from pipeline.sources import decode
from stages.preprocess import align, masks, samples


def test_names_are_plain_and_margins_mirror() -> None:
    assert samples.slug("Eugène Delacroix: The Abduction") == "eugene-delacroix-the-abduction"
    assert samples.slug("水月觀音圖") == ""
    face = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    framed = samples.with_margin(face)
    assert framed.shape == (28, 28, 3) and np.array_equal(framed[4:24, 4:24], face)


@pytest.mark.weights
def test_samples_become_aligned_pictures_with_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, few = weights.path("paintings"), tmp_path / "paintings"
    few.mkdir()
    listed = json.loads((real / "objects.json").read_text())["objects"]
    wanted = ("Joseph-Antoine Moltedo", "Erasmus of Rotterdam", "Shiva and Parvati Playing Chaupar")
    chosen = [entry for entry in listed if any(entry["title"].startswith(title) for title in wanted)]
    assert len(chosen) == len(wanted)
    for entry in chosen:
        shutil.copyfile(real / f"{entry['objectID']}.jpg", few / f"{entry['objectID']}.jpg")
    (few / "objects.json").write_text(json.dumps({"objects": listed}))
    true_path = weights.path
    monkeypatch.setattr(weights, "path", lambda name: few if name == "paintings" else true_path(name))
    for name, value in {"FACES": 1, "PORTRAITS": 2, "OTHERS": 1}.items():
        monkeypatch.setattr(samples, name, value)

    cache = tmp_path / "cache"
    ctx = Context(profile=profile.load("portable"), cache=cache, content=cache / "samples/content",
                  style=cache / "samples/style")  # fmt: skip
    assert samples.run(ctx) == 0
    before = {path: path.stat().st_mtime_ns for path in (cache / "samples").rglob("*.jpg")}
    assert samples.run(ctx) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 4
    assert decode.read((ctx.content / "face-00.jpg").read_bytes()).shape[0] > samples.SIDE

    assert align.run(ctx) == 0 and masks.run(ctx) == 0
    for collection, portraits in (("content", 2), ("style", 2)):
        keys = reader.keys(ctx.file(collection, "images"))
        scores = [row["score"] for row in reader.read_rows(ctx.file(collection, "images"), keys, ["score"])]
        rows = reader.read_rows(ctx.file(collection, "masks"), keys, ["region", "parse", "coverage"])
        assert sum(score > 0 for score in scores) == portraits
        for score, row in zip(scores, rows, strict=True):
            assert row["parse"].max() <= 2
            if score > 0:
                assert row["coverage"].sum() == pytest.approx(1) and row["coverage"][1] > 0.1
            else:
                assert (row["region"] == 255).all() and not row["coverage"].any()
