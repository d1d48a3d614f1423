"""inspect tells what is in caches, parts and shards, quickly however many rows there are, and draws rows."""

import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline import profile
from pipeline.caches import reader, writer
from pipeline.caches.schema import Column, Layout
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.reports import sheets
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Reject, StageSpec, Worker
from pipeline.training import checkpoint
from stages.preprocess import shards
from stages.tools import inspect, inspect_images, inspect_rows, verify
from tests.support.caches import fill

COUNT = 20


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("inspect")
    ctx = Context(profile.load("tiny"), cache=base / "cache", content=base / "content", style=base / "style")
    fill(ctx, "content", COUNT)
    fill(ctx, "style", 5)
    shards.run(ctx)
    return ctx


def words(text: str, dataset: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [dataset])


def test_a_report_names_all_there_is(ctx: Context) -> None:
    path = ctx.file("content", "latents")
    text = inspect.run(path)
    assert "20 rows, 0 rejects" in text and "stage    latents" in text and "content0000 .. content0019" in text
    assert words(text, "latent")[1:5] == ["20x4x16", "f4", "256x4x16", "fletcher32"]
    assert words(inspect.run(ctx.file("content", "images")), "image")[2] == "bytes"
    one = inspect.run(ctx.file("content", "aladin"), key="content0002")
    assert "image_code" in one.split("content0002\n")[1]
    with pytest.raises(UserError, match="no key 'nobody'"):
        inspect.run(ctx.file("content", "masks"), key="nobody")


def test_ranges_are_right_and_nans_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3000, 64)).astype("f4")
    values[1234, 5], values[7] = 99, np.nan
    path = tmp_path / "x.h5"
    write(path, {"v": Column("f4", (64,))}, [{"v": row} for row in values])
    spread = f"{np.nanmin(values):.4g} .. 99, mean {np.nanmean(values, dtype=float):.4g}, 64 NaN"
    assert spread in inspect.run(path, full=True)
    assert "spread rows" in inspect.run(path) and "spread rows" not in inspect.run(path, full=True)


def write(path: Path, columns: dict[str, Column], rows: list[dict]) -> None:
    batch = writer.PendingRows.empty()
    for i, row in enumerate(rows):
        batch.add(f"k{i:06d}", row, bytes(16))
    made = {"columns": {n: [c.dtype, *c.shape] for n, c in columns.items()}, "parents": {}, "params": {}}
    writer.write_part(path, batch, Layout(columns, 1, made)).rename(path)


def test_a_large_cache_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 rows: few bytes are read, and the command costs little more processor time than its help."""
    path = tmp_path / "aladin.h5"
    rng = np.random.default_rng(0)
    row = {"code": rng.random((3, 256), np.float32), "region": rng.integers(0, 3, (64, 64)).astype("u1"), "image": b"x"}
    write(
        path,
        {"code": Column("f4", (3, 256)), "region": Column("u1", (64, 64)), "image": Column("bytes")},
        [row] * 10_000,
    )
    taken = []
    block = reader.Cache.block
    monkeypatch.setattr(reader.Cache, "block", lambda self, *a: taken.append(a[2] - a[1]) or block(self, *a))
    assert "10000 rows" in inspect.run(path)
    assert sum(taken) < 5000 and max(taken) < 200
    seconds = {name: cpu("inspect", name) for name in (str(path), "--help")}
    assert seconds[str(path)] < seconds["--help"] + 1


def cpu(*words: str) -> float:
    """Processor seconds of a command; the clock on the wall says little on a busy machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = Path(inspect.__file__).parents[2]
    subprocess.run([sys.executable, "-m", "stages.cli.main", *words], check=True, cwd=root, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_parts_and_shards_are_told_like_caches(ctx: Context, tmp_path: Path) -> None:
    part = tmp_path / "content/latents.parts/000001.h5"
    part.parent.mkdir(parents=True)
    ctx.file("content", "latents").rename(part)
    try:
        assert "20 rows" in inspect.run(part, png=tmp_path / "p.png")
    finally:
        part.rename(ctx.file("content", "latents"))
    whole = inspect.run(ctx.shards)
    assert "25 samples in" in whole and words(whole, "content-train")[1:4] == ["image", "32x32x3", "uint8"]
    tar = min(ctx.shards.glob("style-*.tar"))
    assert tar.name in inspect.run(tar, full=True) and "content-train" not in inspect.run(tar)
    with pytest.raises(UserError, match=r"not in .*index\.json"):
        inspect.run(ctx.shards / "other.tar")


def test_rejects_are_counted_by_reason(ctx: Context, tmp_path: Path) -> None:
    def open_nothing(_: Context) -> Worker:
        return lambda items: [Reject("too dark") for _ in items]

    spec = StageSpec(
        name="x", output="x", columns={"v": Column("f4")}, open=open_nothing, parents={"images": ("path",)}
    )
    run_stage(spec, "content", ctx)
    path = ctx.file("content", "x")
    assert "0 rows, 20 rejects" in inspect.run(path) and "20 x too dark" in inspect.run(path)
    with pytest.raises(UserError, match="no rows to draw"):
        inspect.run(path, png=tmp_path / "x.png")
    path.unlink()


def test_rows_are_drawn_with_their_kin(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png, html = tmp_path / "a.png", tmp_path / "a.html"

    def generate(made: dict, latents: np.ndarray) -> np.ndarray:
        assert made["stage"] == "latents" and latents.shape == (1, 4, 16)
        return np.full((1, 64, 64, 3), 200, np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(inspect_images, "generate", generate)
        inspect.run(ctx.file("content", "masks"), key="content0002", png=png, html=html)
    picture = cv2.imread(str(png))
    panels = 1 + 1 + 3 + 1 + 3  # image, overlay, windows of three regions, the latent's picture, three nearest styles
    assert picture.shape == (sheets.LABEL + sheets.SIDE + 2, panels * (sheets.SIDE + 2), 3)
    assert (picture[sheets.LABEL : -2, 5 * (sheets.SIDE + 2) : 6 * (sheets.SIDE + 2) - 2] == 200).all()
    assert "data:image/png" in html.read_text()
    told = inspect.run(ctx.file("style", "latents"), png=png)  # these are not that long
    assert "latents are drawn as grey levels: its generator cannot draw latents [4, 16]" in told
    inspect.run(ctx.shards, png=png)
    assert cv2.imread(str(png)).shape[0] == 8 * (sheets.LABEL + sheets.SIDE + 2)


def test_nearest_styles_are_those_with_the_highest_cosine(ctx: Context) -> None:
    with reader.Cache(ctx.file("style", "aladin")) as cache:
        codes = {
            key: row["image_code"]
            for key, row in zip(cache.keys(), cache.rows(cache.keys(), ["image_code"]), strict=True)
        }
    rows = {"style0001": {"image_code": codes["style0001"]}}
    inspect_images.add_nearest(rows, ctx.cache / "style")

    def likeness(key: str) -> float:
        a, b = codes["style0001"], codes[key]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    best = sorted(set(codes) - {"style0001"}, key=likeness, reverse=True)[:3]
    assert [n for n, _, _ in rows["style0001"]["nearest"]] == best
    assert rows["style0001"]["nearest"][0][1] == pytest.approx(likeness(best[0]), abs=1e-5)


def test_rejected_windows_are_covered_in_part() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, :40] = True
    found = inspect_rows.rejected_windows(mask, 16, 0.7)
    assert found and all(box[2] - box[0] == 16 for box, _ in found)
    for (x0, y0, x1, y1), share in found:
        assert share == mask[y0:y1, x0:x1].mean() and 0 < share < 0.7


def test_damage_is_told(ctx: Context, tmp_path: Path) -> None:
    verify._drop(ctx.file("style", "masks"), {"style0001"})
    assert "4 rows" in inspect.run(ctx.file("style", "masks"), png=tmp_path / "x.png")
    broken = tmp_path / "images.h5"
    broken.write_bytes(b"no cache")
    with pytest.raises(UserError, match="damaged"):
        inspect.run(broken)


def test_weights_tell_their_tensors_and_what_made_them(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    checkpoint.save(
        path,
        {"a.weight": torch.arange(6.0).reshape(2, 3).half(), "b": torch.tensor([1.0, torch.nan])},
        {"command": "hypernst train", "steps": 7},
    )
    text = inspect.run(path, full=True, key="a.weight")
    assert "2 tensors, 8 numbers" in text and "command  hypernst train" in text and "steps    7" in text
    assert words(text, "a.weight")[1:] == ["2x3", "float16", "0", "..", "5,", "mean", "2.5"]
    assert words(text, "b")[-2:] == ["1", "NaN"] and "0., 1., 2." in text
    for wrong in ({"key": "c"}, {"png": tmp_path / "a.png"}, {"png": tmp_path / "a.png", "key": "b"}):
        with pytest.raises(UserError) as fault:
            inspect.run(path, **wrong)
        assert fault.value.status == 2
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        inspect.run(path)
