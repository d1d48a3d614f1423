"""The ablations: the paper's rows for any generator, each trained and measured from one base, resumable."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from models.generators.interface import LayerEntry
from models.generators.stylegan2 import layer_table
from pipeline import images, profile
from pipeline.context import Context
from pipeline.reports import sheets
from pipeline.shards.indexed import Samples
from pipeline.training import checkpoint
from stages.evaluate import comparison, methods
from stages.portraits.portrait import from_sample
from stages.recipes import ablation, tables
from stages.recipes.paper_numbers import NOT_COMPARABLE
from stages.train import run as train
from tests.support import html_pages, small_run


def test_the_rows_are_the_papers_where_the_generator_is() -> None:
    settings = profile.load("paper1024").train
    table = layer_table(1024)
    starts = [row.changes["start_layer"] for row in ablation.plan(3, settings, table)]
    assert starts == [3, 7, 13, 17, 22]
    assert [row.changes["lambda2"] for row in ablation.plan(2, settings, table)] == [0.5, 1, 2, 5, 10]
    switches = [(row.changes["mask_condition"], row.changes["mask_loss"]) for row in ablation.plan(4, settings, table)]
    assert sorted(switches) == [(False, False), (False, True), (True, False), (True, True)]


def test_a_layer_is_the_same_one_in_every_generator() -> None:
    """By name in StyleGAN2's of any size, by resolution in another one; those that it lacks are left out."""
    large, small = layer_table(1024), layer_table(256)
    rows = ablation.plan(3, profile.load("paper256").train, small)
    assert [row.changes["start_layer"] for row in rows] == [3, 7, 13, 17]
    assert all(small[i] == large[i] for i in (3, 7, 13, 17)) and rows[2].title.startswith("64px (13,")
    table = [LayerEntry(i, f"layer{i}", 4 << i // 2, "conv3x3", (4, 4)) for i in range(14)]
    rows = ablation.plan(3, profile.load("portable").train, table)
    sides = [table[row.changes["start_layer"]].resolution for row in rows]
    assert [row.paper for row in rows] == ["3", "7", "13", "17"]
    assert sides == [8, 16, 64, 256] and [row.title.split()[0] for row in rows] == ["8px", "16px", "64px", "256px"]


@pytest.mark.weights
def test_a_table_is_trained_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_run.installed():
        ctx = small_run.context(tmp_path, "sweep", reconstruction_steps=2, lambda2=1.0)
        ctx = dataclasses.replace(
            ctx,
            profile=dataclasses.replace(ctx.profile, eval=dataclasses.replace(ctx.profile.eval, contents=1, styles=1)),
        )
        small_run.write_shards(ctx)
        monkeypatch.setattr(
            comparison,
            "cached",
            lambda ctx, name, limit, choose: iter([from_sample(Samples(ctx.shards, name, "train")[0])]),
        )
        taken = []
        run = train.run

        def counted(ctx: Context, **given: object) -> int:
            taken.append(ctx.run.name)
            return run(ctx, **given)  # type: ignore[arg-type]

        monkeypatch.setattr(train, "run", counted)
        assert ablation.run(ctx, table=4, steps=1) == 0
        names = [
            "table4-cond-true-loss-true",
            "table4-cond-false-loss-false",
            "table4-cond-false-loss-true",
            "table4-cond-true-loss-false",
        ]
        assert taken == ["base", names[0], "base-no-mask-cond", *names[1:]]
        text = (ctx.run / "ablation" / "table4.md").read_text()
        assert text.splitlines()[0] == (
            "| Experiment | LPIPS (Alexnet) | LPIPS (VGG) | SIFID (FID Inception, Conv2d_4a, 192) "
            "| SIFID (FID Inception, Conv2d_2b, 64) | Base |"
        )
        bases = [line.split("|")[-2].strip() for line in text.splitlines()[2:]]
        assert bases == ["base", "base-no-mask-cond", "base-no-mask-cond", "base"]
        assert len(text.splitlines()) == 6 and "nan" not in text
        numbers = {line.split("|")[1]: line.split("|")[2:] for line in text.splitlines()[2:]}
        assert len({tuple(row) for row in numbers.values()}) > 1
        assert (
            checkpoint.meta(ctx.run / "ablation" / names[1] / "checkpoint.safetensors")["extra"]["phase"] == "stylize"
        )
        assert ablation.run(ctx, table=4, steps=1) == 0 and len(taken) == 6  # all there
        assert (ctx.run / "ablation" / "table4.md").read_text() == text
        base = dataclasses.replace(ctx.profile.train, weights=str(ctx.run / "ablation" / "base.safetensors"))
        check_tables(dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, train=base)))


def check_tables(ctx: Context) -> None:
    """Tables 1 and 4 in all their forms; the others are told as missing."""
    comparison.run(ctx, methods=methods.chosen(["unstylised", "sae", "gatys", "hypernst"]))
    assert tables.run(ctx) == 0
    out = ctx.run.parent / "tables"
    names = {f"table{n}.{form}" for n in (1, 4) for form in ("md", "html", "csv", "json")}
    assert {path.name for path in out.iterdir()} == names | {"figure5.png", "figure4-hypernst.png", "strips4.png"}
    for number in (1, 4):
        assert html_pages.problems(out / f"table{number}.html") == []
        assert f"{NOT_COMPARABLE}\n" in (out / f"table{number}.md").read_text()
    first = json.loads((out / "table1.json").read_text())
    rows = {row["method"]: row for row in first["rows"]}
    measured = json.loads((comparison.folder(ctx) / "results.json").read_text())
    assert rows["hypernst"]["lpips_alex"] == measured["methods"]["hypernst"]["lpips_alex"]
    low, high = measured["intervals"]["hypernst"]["sifid_192"]
    assert (rows["hypernst"]["sifid_192 low"], rows["hypernst"]["sifid_192 high"]) == (low, high)
    assert rows["hypernst"]["paper: LPIPS (Alexnet)"] == 0.000042 and rows["unstylised"]["paper: SIFID"] is None
    assert rows["gatys"]["lpips_alex"] is None and "--budget" in rows["gatys"]["not_measured"]
    with (out / "table1.csv").open() as file:
        lines = {row["method"]: row for row in csv.DictReader(file)}
    assert float(lines["hypernst"]["sifid_192"]) == rows["hypernst"]["sifid_192"] and lines["gatys"]["sifid_192"] == ""
    assert lines["sae"]["paper: Time (s/img)"] == "0.1" and lines["hypernst"]["interpolation"] == "True"
    told = json.loads((ctx.run / "ablation" / "table4.json").read_text()) | {"table": 3}
    for layer, row in zip((3, 7, 13, 17), told["rows"].values(), strict=True):
        row |= {"paper": str(layer), "value": layer}
    third = tables.ablation(ctx, told, out)
    assert [plot["svg"].count("<polyline") for plot in third.plots] == [1, 1]
    assert third.figures.rows[2][-2:] == ("13", "0.000042 / 0.00169 / 2.279") and (out / "figure3.png").exists()
    page = (out / "table4.html").read_text()
    assert page.count("<circle") == 4 and "<td>0.00004 / 0.0017 / 2.279</td>" in page
    assert images.decode((out / "strips4.png").read_bytes()).shape[1] == 6 * (sheets.CELL + sheets.GAP)
